"""The fixtures: `recorder`, and `gcloud`, which runs one command of the real gcloud there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from local_cloud.addresses import Addresses
from tests.deploy.recorder.recorder import Recorder
from tests.real_gcloud import Answer, find_gcloud, run_group
from tests.support import Service, clean_environment
from tests.warm_gcloud import warm_path

Run = Callable[..., Answer]
SCRIPT_LIMIT_S = 600.0


@pytest.fixture
def recorder(local_pubsub: Service, local_storage: Service, local_run: Service, project: str, tmp_path: Path) -> Iterator[Recorder]:
    """An endpoint of this test, with a project of its own; at the end nothing may have been refused as unknown."""
    find_gcloud()
    addresses = Addresses(local_pubsub.grpc, local_pubsub.http, local_storage.http, local_run.http)
    with Recorder(addresses, project, tmp_path / "gcloud") as made:
        yield made
    assert not made.refused, "gcloud asked for what the recording endpoint does not know"


@pytest.fixture
def gcloud(recorder: Recorder) -> Run:
    """`gcloud("pubsub", "topics", "list")` answers with exit code, output and messages."""

    def run(*arguments: str, stdin: str = "") -> Answer:
        return run_script(recorder, ["gcloud", *arguments], stdin)

    return run


def run_script(recorder: Recorder, command: Sequence[str], stdin: str = "", limit_s: float = SCRIPT_LIMIT_S) -> Answer:
    """A program whose gcloud, and whose Fanout, use this endpoint."""
    environment = {**clean_environment(), **recorder.environment}
    return run_group(command, {**environment, "PATH": warm_path(environment)}, stdin, limit_s)
