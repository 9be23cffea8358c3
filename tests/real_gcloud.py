"""The real gcloud against the local cloud: one command at a time, with its exit code and output.

The rule: a machine without gcloud skips with the reason; where REQUIRE_REAL=1 it fails instead.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_cloud.addresses import Addresses
from local_cloud.gcloud import gcloud_environment
from tests.support import clean_environment
from tests.warm_gcloud import warm_path

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
        environment["PATH"] = warm_path(environment)
        return run_group(["gcloud", *arguments], environment, stdin)

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """The output of a command that must succeed."""
        return self(*arguments, "--format=json", stdin=stdin).json


def run_group(command: Sequence[str], environment: Mapping[str, str], stdin: str = "", limit_s: float = LIMIT_S) -> Answer:
    """Run a command that starts others, as `gcloud`, a shell script, does: after the limit all of them are ended.

    Raises TimeoutExpired with what it had said.
    """
    pipe = subprocess.PIPE
    # A session of its own: its group has the id of its first process, and nobody else is in it.
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True) as process:
        try:
            output, messages = process.communicate(stdin, limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Answer(process.returncode, output, messages)


def find_gcloud() -> None:
    """Skip, or fail, without gcloud."""
    if shutil.which("gcloud") is None:
        reason = "`gcloud` is not installed"
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, but {reason}")
        pytest.skip(reason)
