"""What only an extra installs: its absence is one line that says what to install, never a traceback."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batch.extras import needs_extra

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_library_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, needs_extra("python -m intake", "intake"):
        importlib.import_module("no_such_library.part")
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "python -m intake needs no_such_library, which is not installed: "
        "install 'fanout-batch[intake]', or 'fanout-batch[local]' for all of Fanout\n"
    )


def test_a_missing_module_of_ours_is_a_fault() -> None:
    with pytest.raises(ModuleNotFoundError), needs_extra("fanout", "local"):
        importlib.import_module("fanout.no_such_command")


def test_a_worker_does_not_load_the_engine_for_tables_before_a_table_comes() -> None:
    program = "import sys, batch.handlers; print([name for name in sys.modules if name.split('.')[0] in ('duckdb', 'pyarrow')])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"


def test_the_image_has_the_engine_unless_it_is_built_without() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG DATA=1$", dockerfile, re.MULTILINE)
    assert re.search(r"^ARG TELEMETRY=$", dockerfile, re.MULTILINE)
    assert "-r requirements/image.txt ${DATA:+-r requirements/data.txt} ${TELEMETRY:+-r requirements/telemetry.txt}" in dockerfile
    names = ("image", "data", "telemetry")
    pinned = {name: set(re.findall(r"^(\S+==\S+)", (ROOT / f"requirements/{name}.txt").read_text(), re.MULTILINE)) for name in names}
    assert pinned["image"] < pinned["telemetry"], "the files agree on every version, or pip refuses them together"
    assert {one.split("==")[0] for one in pinned["data"] ^ pinned["image"]} == {"duckdb"}
    assert "!/requirements" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in pinned:
        assert "--index" not in (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
