"""The page about simulations: its commands have options that are known, and every option is explained."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from controller.simulation.rivals import RIVALS
from fanout.simulation.simulate import command as simulate
from fanout.simulation.tune import command as tune

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
FILE = re.search(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS: dict[str, click.Command] = {"simulate": simulate, "tune": tune}
OF_ALL = {"--project", "--region", "--bucket", "--json", "--help"}


@pytest.mark.parametrize("line", LINES)
def test_each_command_of_the_page_can_be_given(line: str) -> None:
    """Its options are known; it is not run, which would take seconds."""
    program, name, *options = shlex.split(line)
    assert program == "fanout"
    command = COMMANDS[name]
    with command.make_context(name, [*options]) as context:
        assert not context.args


def test_every_option_is_explained() -> None:
    options = {name for one in COMMANDS.values() for parameter in one.params for name in parameter.opts if name.startswith("--")}
    assert not sorted(name for name in options - OF_ALL if f"`{name}`" not in PAGE)


def test_the_file_of_the_page_is_one(tmp_path: Path) -> None:
    path = tmp_path / "monday.csv"
    assert FILE is not None
    path.write_text(FILE[1], encoding="utf-8")
    result = CliRunner().invoke(simulate, ["--arrivals", str(path), "--message-s", "lognormal:2:0.5"])
    assert result.exit_code == 0, result.output
    assert "fanout" in result.output


def test_the_kinds_that_the_page_names_are_there() -> None:
    assert {"keda-default", "cron"} <= {rival.kind for rival in RIVALS.values()}
