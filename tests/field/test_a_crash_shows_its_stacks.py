"""A worker that a C library crashes says on standard error where each thread was, and dies by the signal it was sent."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.site import Site
from tests.support import Service

CRASHES = {
    "crashes": (signal.SIGSEGV, "Segmentation fault", "touches_what_is_not_its_own"),
    "gives-up": (signal.SIGABRT, "Aborted", "gives_up"),
    "async-crashes": (signal.SIGSEGV, "Segmentation fault", "touches_it_on_the_loop"),
    "group-crashes": (signal.SIGSEGV, "Segmentation fault", "touches_it_for_all"),
    "closes-and-crashes": (signal.SIGSEGV, "Segmentation fault", "closes_its_streams_first"),
}


@pytest.fixture
def site(project: str, local_storage: Service, local_pubsub: Service) -> Iterator[Site]:
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()


@pytest.mark.parametrize("task_type", CRASHES)
def test_the_stack_of_the_handler_stands_in_the_log(site: Site, task_type: str) -> None:
    number, what, function = CRASHES[task_type]
    site.publish([{"task_id": "crash", "task_type": task_type}])
    end = site.run(HANDLERS="tests.field.crashing_handlers", BACKLOG=1)
    assert end.code == -number, end.text
    told = end.text.partition(f"Fatal Python error: {what}")[2]
    assert f"in {function}" in told, end.text
    assert "in wait" in told, "the other threads are there as well"


def test_an_isolated_handler_that_crashes_shows_its_own_and_the_worker_lives(site: Site) -> None:
    site.publish([{"task_id": "crash", "task_type": "isolated-crashes"}])
    end = site.run(HANDLERS="tests.field.crashing_handlers", BACKLOG=1, BILLING_FLOOR_S=0)
    assert (end.code, end.summary["exit_reason"]) == (0, "share_done"), end.text
    printed = "\n".join(str(line["message"]) for line in end.events("handler_output"))
    assert "Segmentation fault" in printed
    assert "in touches_it_alone" in printed
