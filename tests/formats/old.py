"""The code that froze the formats of 0.1, out of the repository's history: what an upgrade finds running, and a roll back brings again."""

from __future__ import annotations

import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FROZEN_BY = "82b9d33"
PARTS = ("batch", "controller", "intake", "fanout", "local_cloud", "tests", "jobs.yaml", "pyproject.toml")


def old_code(folder: Path) -> Path:
    """Unpacked into the folder; run it with `environment`. Skips, or fails where REQUIRE_REAL=1, in a clone without that commit."""
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", FROZEN_BY, "--", *PARTS], capture_output=True, check=False)
    if packed.returncode:
        reason = f"commit {FROZEN_BY} is not in this clone (fetch its history): {packed.stderr.decode().strip()}"
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, but {reason}")
        pytest.skip(reason)
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def environment(code: Path) -> dict[str, str]:
    """With it `python -P` imports Fanout from there, and everything else as it is installed today."""
    return {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
