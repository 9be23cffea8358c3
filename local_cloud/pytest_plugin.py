"""A pytest fixture for other projects: a running local cloud.

`pytest_plugins = ["local_cloud.pytest_plugin"]` in the topmost conftest.py makes `local_cloud` known. One local cloud serves a whole test
run: use a project of your own per test, and never wait for a reset.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping

import pytest

from local_cloud.supervisor.supervisor import LocalCloud, Options

_FOREIGN = ("GOOGLE_", "CLOUDSDK_", "PUBSUB_", "STORAGE_", "CLOUD_RUN_", "CLOUD_MONITORING_", "GCLOUD_")


@pytest.fixture(scope="session")
def local_cloud_options() -> Options:
    """Override it to start the local cloud with other options. By default gauges are exact at once."""
    return Options(sample_period_s=0, visibility_lag_s=0)


@pytest.fixture(scope="session")
def local_cloud(tmp_path_factory: pytest.TempPathFactory, local_cloud_options: Options) -> Iterator[LocalCloud]:
    """A running local cloud: `environment`, `addresses`, `advance(seconds)`, `faults.add(…)`, `freeze`, `thaw`, `kill` and `restart` of a
    service by name ("pubsub", "storage", "run"). It stops with the test run, also when that is killed."""
    with LocalCloud(tmp_path_factory.mktemp("local-cloud"), local_cloud_options, _neutral(os.environ)) as cloud:
        yield cloud
        cloud.check()


@pytest.fixture
def local_cloud_environment(local_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The environment that sends Google's clients to the local cloud, set for one test, with a project that no other test has."""
    environment = {**local_cloud.environment, "GOOGLE_CLOUD_PROJECT": f"test-{uuid.uuid4().hex[:12]}"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


def _neutral(environment: Mapping[str, str]) -> dict[str, str]:
    """Drops the variables that could send a worker to a real project."""
    return {name: value for name, value in environment.items() if not name.startswith(_FOREIGN)}
