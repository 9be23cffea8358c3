"""A site for each end-to-end test: on the local cloud, and the same again with Google's Pub/Sub emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.permissions.recording import calls_are_granted
from tests.e2e.site import Site
from tests.support import Service

__all__ = ["calls_are_granted"]


@pytest.fixture(params=["local", pytest.param("google", marks=[pytest.mark.real, pytest.mark.slow])])
def site(request: pytest.FixtureRequest, project: str, local_storage: Service) -> Iterator[Site]:
    """The broker is the local cloud's, or Google's; the bucket is the local cloud's."""
    pubsub = request.getfixturevalue("local_pubsub").grpc if request.param == "local" else request.getfixturevalue("google_pubsub")
    made = Site(project, pubsub, local_storage.http)
    yield made
    made.close()


@pytest.fixture
def local_site(project: str, local_storage: Service, local_pubsub: Service) -> Iterator[Site]:
    """Only on the local cloud: for what does not depend on the broker."""
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()
