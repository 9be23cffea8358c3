"""The local cloud as the controller's real outside, for tests with Google's clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import Service, start_service


@pytest.fixture(scope="session")
def local_pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """In place of the shared one, whose clock other tests move: a gauge that is sampled in the future is not seen here."""
    service = start_service("pubsub", tmp_path_factory.mktemp("pubsub"), "--sample-period-s", "0", "--visibility-lag-s", "0")
    yield service
    service.stop()


@pytest.fixture
def cloud(
    monkeypatch: pytest.MonkeyPatch, project: str, local_run: Service, local_storage: Service, local_pubsub: Service
) -> dict[str, str]:
    """The environment that sends everything to the local cloud, set for this process; in a project of its own."""
    environment = {
        "GOOGLE_CLOUD_PROJECT": project,
        "BUCKET_NAME": f"{project}-bucket",
        "REGION": "us-central1",
        "PUBSUB_EMULATOR_HOST": local_pubsub.grpc,
        "CLOUD_MONITORING_EMULATOR_HOST": local_pubsub.grpc,
        "STORAGE_EMULATOR_HOST": local_storage.http,
        "CLOUD_RUN_EMULATOR_HOST": local_run.http,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment
