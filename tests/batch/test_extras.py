"""What only an extra installs: its absence is one line that says what to install, never a traceback."""

from __future__ import annotations

import importlib

import pytest

from batch.extras import needs_extra


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
