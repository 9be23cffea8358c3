"""The real terraform in a copy of deploy/, with the stand-in for Google's provider, and a plan of everything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.terraform.provider import provider

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
IMAGE = f"us-central1-docker.pkg.dev/my-project/fanout/fanout@sha256:{'0' * 64}"
SETTINGS = {"project": "my-project", "bucket": "my-bucket", "runbooks": "https://example.org/runbooks.md"}
CHANNEL = "projects/my-project/notificationChannels/1"
needs_terraform = pytest.mark.skipif(not shutil.which("terraform"), reason="needs terraform, which the Python Package Index does not have")


@dataclass(frozen=True)
class Terraform:
    """Runs in a copy of the repository's files, with its own state."""

    folder: Path
    environment: Mapping[str, str]

    def __call__(self, *words: str, settings: Mapping[str, str] | None = None, code: int = 0) -> str:
        command = ["terraform", *words, *(f"-var={name}={value}" for name, value in (settings or {}).items())]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, **settings: str) -> list[dict[str, Any]]:
        """The resources of a plan: address, type, name, index, values."""
        self("plan", "-input=false", "-no-color", "-out=plan", settings=settings)
        return list(json.loads(self("show", "-json", "plan"))["planned_values"]["root_module"]["resources"])


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    folder = tmp_path_factory.mktemp("terraform")
    shutil.copytree(DEPLOY, folder / "deploy")
    shutil.copy(ROOT / "jobs.yaml", folder)
    with provider() as environment:
        yield Terraform(folder / "deploy" / "terraform", {**os.environ, **environment})


@pytest.fixture(scope="module")
def plan(terraform: Terraform) -> list[dict[str, Any]]:
    return terraform.planned(**SETTINGS, image=IMAGE, channel=CHANNEL, cost_a_day_usd="7.5")
