"""Delayed jobs: their executions start late by the service's clock, and are cancelled at the limit of twelve hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import run_v2

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import Service, Starter

HOUR_S = 3600.0
V1 = "apis/run.googleapis.com/v1/namespaces/shop"


def deploy(service: Service, command: list[str], delay: object = "true", timeout: str = "600", status: int = 200) -> Any:
    task = {"containers": [{"image": "example.com/worker", "command": command, "env": [{"name": "OUT", "value": str(service.out)}]}]}
    spec = {"delayExecution": delay, "template": {"spec": {"template": {"spec": {**task, "timeoutSeconds": timeout, "maxRetries": 0}}}}}
    return service.local(f"{V1}/jobs", {"metadata": {"name": "lane"}, "spec": spec}, status)


def conditions(service: Service, execution: str) -> dict[str, tuple[str, str]]:
    shown = service.local(f"{V1}/executions/{execution.rpartition('/')[2]}")["status"]["conditions"]
    return {one["type"]: (one["status"], one.get("reason", "")) for one in shown}


def test_an_execution_waits_for_the_clock_and_says_so(service: Service) -> None:
    deploy(service, ["true"])
    name = service.run()
    service.clock.advance(HOUR_S - 30)
    waiting = service.get(name)
    assert (waiting.start_time, waiting.running_count, waiting.completion_time) == (None, 0, None)
    assert not service.local("workers")["workers"]
    shown = {one.type_: (one.state, one.execution_reason) for one in waiting.conditions}
    pending = (run_v2.Condition.State.CONDITION_RECONCILING, run_v2.Condition.ExecutionReason.DELAYED_START_PENDING)
    assert (shown["ResourcesAvailable"], shown["Started"]) == (pending, pending)
    assert conditions(service, name)["Started"] == ("Unknown", "DelayedStartPending")
    service.clock.advance(30)
    over = service.finish(name)
    assert over.succeeded_count == 1
    assert (over.start_time - over.create_time).total_seconds() >= HOUR_S


def test_it_goes_on_waiting_after_a_restart(start: Starter) -> None:
    first = start()
    deploy(first, ["true"])
    name = first.run()
    first.stop()
    second = start()
    assert second.local(f"{V1}/jobs/lane")["spec"]["delayExecution"] == "true"
    second.clock.advance(HOUR_S - 30)
    assert conditions(second, name)["ResourcesAvailable"][0] == "Unknown"
    second.clock.advance(30)
    assert second.finish(name).succeeded_count == 1


def test_it_is_cancelled_twelve_hours_after_its_start(service: Service) -> None:
    deploy(service, ["sh", "-c", "touch $OUT/0-0.up; exec sleep 600"], timeout=str(12 * 3600))
    name = service.run()
    service.clock.advance(HOUR_S)
    service.wait_for_files("0-0.up")
    # Its own timeout comes no earlier, so it is the limit that ends it.
    service.clock.advance(12 * HOUR_S)
    assert service.finish(name).cancelled_count == 1


def test_a_job_that_is_written_back_through_v2_is_not_delayed_any_more(service: Service) -> None:
    deploy(service, ["true"])
    job = service.jobs.get_job(name="projects/shop/locations/us-central1/jobs/lane")
    service.jobs.update_job(job=job).result()
    assert "delayExecution" not in service.local(f"{V1}/jobs/lane")["spec"]
    assert service.finish(service.run()).succeeded_count == 1


@pytest.mark.parametrize(
    ("delay", "timeout", "rule"),
    [
        (True, "600", "spec.delayExecution: got True, must be a string"),
        ("yes", "600", "spec.delayExecution: got 'yes', must be"),
        ("true", "43201", "timeoutSeconds: got 43201.0, must be at most 43200 s (12 h)"),
    ],
)
def test_what_a_delayed_job_cannot_be_is_refused(service: Service, delay: object, timeout: str, rule: str) -> None:
    assert rule in deploy(service, ["true"], delay, timeout, 400)["error"]["message"]


def test_a_run_with_a_longer_timeout_is_refused(service: Service) -> None:
    deploy(service, ["true"])
    refused = service.local(f"{V1}/jobs/lane:run", {"overrides": {"timeoutSeconds": "43201"}}, 400)
    assert "at most 43200 s" in refused["error"]["message"]
