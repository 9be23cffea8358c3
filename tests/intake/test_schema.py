"""What the OpenAPI document allows, and what it does not, by schemathesis: no request gets a 5xx, and every error is a problem."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from batch.serving.listening import listening
from batch.testing import ManualClock, MemoryObjectStore
from intake.collector import AsyncTopic
from intake.config import IntakeSettings, intake_settings
from intake.service import create_app
from tests.intake.fake import FakeTopic
from tests.intake.test_service import registry

pytestmark = pytest.mark.slow
CASES = 700


class Served:
    """The front door on loopback, with topics and a bucket in memory."""

    def __init__(self, store: MemoryObjectStore) -> None:
        topics = {"default": FakeTopic("a"), "urgent": FakeTopic("b")}

        @asynccontextmanager
        async def opened(_settings: IntakeSettings) -> AsyncIterator[Mapping[str, AsyncTopic]]:
            yield topics

        given_settings = intake_settings({"GOOGLE_CLOUD_PROJECT": "p", "LANES": "default=a,urgent=b", "BUCKET_NAME": "memory"})
        self.app = create_app(given_settings, registry=registry(), topics=opened, clock=ManualClock(), rng=random.Random(5), store=store)
        self.door = listening("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_config=None, access_log=False))
        self.thread = threading.Thread(target=self.server.run, args=([self.door],))
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.door.close()
        assert not self.thread.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served(MemoryObjectStore())
    yield made
    made.stop()


def check_answer(case: Any, response: Any) -> None:
    said = (
        f"{case.method} {case.formatted_path} {case.query} {case.headers} {case.body!r:.300}: {response.status_code} {response.text[:500]}"
    )
    assert response.status_code < 500, said
    assert response.headers["x-request-id"], said
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"], said
        problem = response.json()
        assert problem["status"] == response.status_code, said
        assert problem["error"] == problem["detail"], said
        assert min(problem["error"], problem["title"]), said


def test_no_request_gets_a_5xx_and_every_error_is_a_problem(served: Served) -> None:
    document: Any = schemathesis.openapi.from_dict(served.app.openapi())
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 14
    each = CASES // len(operations) // 2
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(max_examples=each, deadline=None, suppress_health_check=list(HealthCheck))
            @given(operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                check_answer(case, case.call(base_url=served.url))

            with suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
                check()
