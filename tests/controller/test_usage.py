"""`python -m controller --help`."""

from __future__ import annotations

from dataclasses import fields

import pytest

from controller.__main__ import main
from controller.config import ControllerSettings


def test_help_names_every_setting_and_other_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {one.metadata['env']} " in text for one in fields(ControllerSettings))
    assert "None" not in text
    with pytest.raises(SystemExit) as ended:
        main(["--port", "80"])
    assert ended.value.code == 2
