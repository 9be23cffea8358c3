"""The real gcloud against the local cloud: one command at a time, with its exit code and output.

The rule: a machine without gcloud skips with the reason; where REQUIRE_REAL=1 it fails instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_cloud.addresses import Addresses
from local_cloud.gcloud import gcloud_environment
from tests.support import clean_environment

LIMIT_S = 60


@dataclass(frozen=True)
class Answer:
    """What one command said; `messages` is its standard error."""

    code: int
    output: str
    messages: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.messages
        return json.loads(self.output)


@dataclass(frozen=True)
class Gcloud:
    """`gcloud(…)` runs one command; its configuration lies in `folder`."""

    addresses: Addresses
    folder: Path
    project: str

    def __call__(self, *arguments: str, stdin: str = "") -> Answer:
        environment = {**clean_environment(), **gcloud_environment(self.addresses, self.folder, arguments)}
        environment["CLOUDSDK_CORE_PROJECT"] = self.project
        done = subprocess.run(
            ["gcloud", *arguments], input=stdin, capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """The output of a command that must succeed."""
        return self(*arguments, "--format=json", stdin=stdin).json


def find_gcloud() -> None:
    """Skip, or fail, without gcloud."""
    if shutil.which("gcloud") is None:
        reason = "`gcloud` is not installed"
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, but {reason}")
        pytest.skip(reason)
