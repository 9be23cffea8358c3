"""Roll back, and old workers beside new ones: the code that froze 0.1 reads what today's code writes.

Its own tests of reading run on today's files. As long as fields are only added they pass; where one must change, the version of that
format rises, and docs/operations.md says in which order to upgrade.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.formats.old import environment, old_code
from tests.formats.written import all_written
from tests.support import clean_environment

pytestmark = pytest.mark.slow
READING = "not written_as and not is_written and not nothing_else"
"""The others compare what the old code writes."""


def test_what_is_written_today_is_read_by_the_code_that_froze_the_formats(tmp_path: Path) -> None:
    code = old_code(tmp_path)
    said = read_by(code, all_written())
    counts = re.search(r"(\d+) passed", said)
    assert counts is not None, said
    assert "failed" not in said, said
    assert int(counts[1]) >= 14, said


def test_a_field_that_is_gone_would_be_seen(tmp_path: Path) -> None:
    code = old_code(tmp_path)
    today = all_written()
    said = read_by(code, {**today, "attempts-failed.json": today["attempts-failed.json"].replace(b'"error_type"', b'"kind_of_error"')})
    assert "1 failed" in said, said
    assert "test_attempts_and_progress_are_read" in said, said


def read_by(code: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (code / "tests/formats/0.1" / name).write_bytes(content)
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "tests/formats", "-k", READING]
    done = subprocess.run(
        command, cwd=code, env={**clean_environment(), **environment(code)}, capture_output=True, text=True, timeout=100, check=False
    )
    return done.stdout + done.stderr
