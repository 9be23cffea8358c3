"""`make audit` calls safe only what was audited."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests import audit

LOCK = "one==1.0 \\\n    --hash=sha256:ab==\ntwo==2.0 ; python_version < '3.12' \\\n    --hash=sha256:cd\n"
FINE: dict[str, Any] = {"name": "One", "version": "1.0", "vulns": []}
BAD: dict[str, Any] = {"name": "two", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
SKIPPED: dict[str, Any] = {"name": "two", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("dependencies", "code", "said"),
    [
        ([FINE, {**BAD, "vulns": []}], 0, "all of 2 packages were audited"),
        ([FINE, BAD], 1, "vulnerable: two 2.0: PYSEC-1, fixed in 2.1"),
        ([FINE, SKIPPED], 2, "not audited: 1 of 2 packages, the first: two: Dependency not found"),
        ([FINE], 2, "not audited: 1 of 2 packages, the first: two: the report does not name it"),
        ([{**BAD, "name": "one"}, SKIPPED], 1, "not audited: 1 of 2"),
        (None, 2, "not audited: pip-audit gave no report"),
    ],
)
def test_skipped_is_not_safe(
    dependencies: list[dict[str, Any]] | None, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    tool, lock, report = tmp_path / "pip-audit", tmp_path / "image.txt", tmp_path / "report"
    report.write_text("" if dependencies is None else json.dumps({"dependencies": dependencies}))
    tool.write_text(f"#!/bin/sh\ncat {report}\n")
    tool.chmod(stat.S_IRWXU)
    lock.write_text(LOCK)
    monkeypatch.setattr(audit, "TOOL", tool)
    monkeypatch.setattr(audit, "CARRIED", (lock,))
    assert audit.main() == code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
    assert ("none has a known vulnerability" in printed.out) == (code == 0)


def test_it_asks_about_all_that_the_image_can_carry() -> None:
    text = (audit.ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert {f"requirements/{path.name}" for path in audit.CARRIED} <= set(text.split())
