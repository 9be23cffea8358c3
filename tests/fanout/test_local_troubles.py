"""What is in the way of `fanout local` is told in one sentence: folders that cannot be used, records that cannot be read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from batch.model.errors import FanoutError
from fanout.commands import main
from fanout.demo import program
from fanout.demo.program import replace_folder
from fanout.local.running import down_command
from local_cloud.addresses import Addresses
from local_cloud.supervisor import record, state_folder

NOWHERE = Addresses(pubsub="127.0.0.1:1", pubsub_http="http://127.0.0.1:1", storage="http://127.0.0.1:1", run="http://127.0.0.1:1")


def refused(*arguments: str, code: int = 1) -> str:
    """The one line that the command ends with."""
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    return result.output


@pytest.mark.parametrize("command", ["up", "status", "env", "down", "reset"])
def test_a_folder_below_a_file_is_none(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    text = refused("local", command, "--state-dir", str(tmp_path / "file" / "state"))
    assert "cannot be read (Not a directory): name another folder with --state-dir" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("content", ['{"pid": 1', "[]", "7", '{"pid": 1, "started": null, "addresses": 3, "services": {}}'])
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / record.FILE).write_text(content)
    assert "local-cloud.json is not the record of a local cloud" in refused("local", "status", "--state-dir", str(tmp_path))
    (tmp_path / program.MARKER).touch()
    with pytest.raises(FanoutError, match="is not the record"):
        replace_folder(tmp_path)


def _raising(error: OSError) -> Callable[..., None]:
    def claim(_folder: Path) -> None:
        raise error

    return claim


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "cannot be used (Permission denied): name one that you may write to with --state-dir"),
        (errno.EPERM, "cannot be used (Operation not permitted): name one"),
        (errno.ENOSPC, "is full: make room, or name a folder on another one"),
    ],
)
def test_what_keeps_it_from_the_folder_is_told(number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(number, os.strerror(number), str(tmp_path))
    monkeypatch.setattr(state_folder, "claim", _raising(error))
    for more in ([], ["--detach"]):
        text = refused("local", "up", "--state-dir", str(tmp_path / "state"), *more)
        assert words in text
        assert text.count("\n") == 1
    monkeypatch.setattr(program, "replace_folder", _raising(error))
    assert words in refused("demo", "--state-dir", str(tmp_path / "demo"))


def test_the_command_that_ends_it_names_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    record.write(folder, os.getpid(), NOWHERE, {})
    for command in ("up", "reset"):
        assert f"`fanout local down --state-dir '{folder}'`" in refused("local", command, "--state-dir", str(folder))
    assert down_command(Path(".local-cloud/up")) == "fanout local down"


def test_what_the_demo_leaves_can_be_looked_at_and_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    replace_folder(folder)
    (folder / "storage").mkdir()
    state_folder.claim(folder)
    replace_folder(folder)  # and the next demo may have it
    state_folder.claim(folder)
    assert state_folder.delete(folder) == []
    assert not folder.exists()


def test_a_command_that_is_mistyped() -> None:
    assert "No such command 'sumbit'. Did you mean 'submit'?" in refused("sumbit", code=2)
    assert "Did you mean" not in refused("xyzzy", code=2)
    assert "No such command 'upp'. Did you mean 'up'?" in refused("local", "upp", code=2)
