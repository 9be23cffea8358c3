"""The fixture as somebody else's test project uses it: imported by name, nothing else of this repository at hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import clean_environment

CONFTEST = 'pytest_plugins = ["local_cloud.pytest_plugin"]\n'
TESTS = """
import os

import pytest
from google.cloud import pubsub_v1, storage

PROJECTS = []


@pytest.mark.parametrize("number", [1, 2])
def test_clients_find_it(local_cloud_environment, number):
    project = local_cloud_environment["GOOGLE_CLOUD_PROJECT"]
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == project
    assert project not in PROJECTS
    PROJECTS.append(project)
    with pubsub_v1.PublisherClient() as publisher:
        publisher.create_topic(name=f"projects/{project}/topics/tasks", timeout=60)
        assert len(list(publisher.list_topics(project=f"projects/{project}"))) == 1
    assert storage.Client(project).create_bucket(f"bucket-{number}").exists()


def test_it_can_be_disturbed(local_cloud, local_cloud_environment):
    local_cloud.advance(60)
    project = local_cloud_environment["GOOGLE_CLOUD_PROJECT"]
    local_cloud.faults.add("storage", project, "buckets.list", "unavailable")
    local_cloud.kill("pubsub")
    local_cloud.restart("pubsub")
    local_cloud.freeze("run")
    local_cloud.thaw("run")
    print(local_cloud.state_dir, *local_cloud.pids.values())


def test_the_environment_is_left_as_it_was():
    assert "STORAGE_EMULATOR_HOST" not in os.environ
"""


@pytest.mark.slow
def test_others_can_use_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:randomly", "--basetemp", str(tmp_path / "temp")]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if str(tmp_path / "temp") in line]
    for pid in line.split()[1:]:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("module", ["local_cloud.supervisor.supervisor", "local_cloud.web.service"])
def test_the_local_cloud_itself_does_without_pytest(module: str) -> None:
    code = f"import sys, {module}; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=clean_environment(), check=True)
