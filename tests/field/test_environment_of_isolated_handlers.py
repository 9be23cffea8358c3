"""Isolated handlers: the worker's environment, with its tokens, does not reach them unless it is named."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from batch.handling.registry import Registry, default_registry
from batch.model.attempts import NONE, Marker
from batch.model.exit import ExitReason
from batch.worker.admission.records import write_attempts
from batch.worker.executors.environment import environment_of_child, hint
from tests.batch.worker.plant import Plant
from tests.e2e.site import Site
from tests.support import Service

TOKENS = {"API_TOKEN": "secret", "GOOGLE_APPLICATION_CREDENTIALS": "/no/such.json", "https_proxy": "http://user:word@127.0.0.1:1"}


@pytest.fixture
def site(project: str, local_storage: Service, local_pubsub: Service) -> Iterator[Site]:
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()


def settings(count: int, **more: object) -> dict[str, object]:
    own = {"HANDLERS": "tests.field.environment_handlers", "MODEL_PATH": "/model", "CHILD_ENVIRONMENT": "MODEL_*", "API_TOKEN": "secret"}
    return {**own, "BACKLOG": count, "PROCESSES": 1, "BILLING_FLOOR_S": 0, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": 2, **more}


def test_an_isolated_handler_sees_what_programs_need_and_what_is_named(site: Site) -> None:
    site.publish([{"task_id": "tells", "task_type": "isolated-tells"}])
    end = site.run(**settings(1))
    assert end.code == 0, end.text
    (told,) = (one["result"] for one in site.outcomes())
    assert {name: told[name] for name in ("MODEL_PATH", "LC_ALL", "OMP_NUM_THREADS", "PATH", "CLOUD_RUN_EXECUTION")} == {
        "MODEL_PATH": "/model",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "2",
        "PATH": os.environ["PATH"],
        "CLOUD_RUN_EXECUTION": "lane-x",
    }
    kept = {"API_TOKEN", "PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "SUBSCRIPTION_NAME", "BUCKET_NAME"}
    assert not kept & set(told), "what is not on the list stays with the worker"


def test_a_variable_that_is_missing_is_named_with_the_setting(site: Site) -> None:
    site.publish([{"task_id": "needs", "task_type": "isolated-needs"}, {"task_id": "plain", "task_type": "plain-needs"}])
    end = site.run(**settings(2))
    assert end.code == 0, end.text
    outcomes = {one["task_id"]: one for one in site.outcomes()}
    assert (outcomes["plain"]["outcome"], outcomes["plain"]["result"]) == ("succeeded", "secret")
    assert outcomes["needs"]["outcome"] == "dead"
    assert "API_TOKEN" in outcomes["needs"]["reason"]
    assert "CHILD_ENVIRONMENT" in outcomes["needs"]["reason"]


def test_a_module_that_needs_a_variable_says_so_in_the_worker_s_log(site: Site) -> None:
    site.publish([{"task_id": "tells", "task_type": "isolated-tells"}])
    end = site.run(**settings(1, CHILD_ENVIRONMENT="OTHER"))
    assert end.summary["exit_reason"] == "broken", end.text
    (broken,) = end.events("worker_broken")
    assert "MODEL_PATH" in broken["error"]
    assert "CHILD_ENVIRONMENT" in broken["error"]


def test_a_star_gives_everything() -> None:
    assert environment_of_child(TOKENS, ["*"]) == TOKENS
    assert environment_of_child(TOKENS, ["API_*"]) == {"API_TOKEN": "secret"}
    assert environment_of_child(TOKENS, []) == {}
    assert environment_of_child({"PATH": "/bin", "LC_TIME": "C", "OPATH": "x", "path": "y"}, []) == {"PATH": "/bin", "LC_TIME": "C"}


def test_only_a_variable_that_the_worker_has_is_hinted_at() -> None:
    assert "API_TOKEN" in hint("KeyError: 'API_TOKEN'", TOKENS, [])
    assert hint("KeyError: 'API_TOKEN'", TOKENS, ["API_TOKEN"]) == ""
    assert hint("KeyError: 'OTHER'", TOKENS, []) == ""


def test_a_quarantined_task_of_a_plain_handler_has_what_it_has_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker was killed while it ran: it runs alone in a child now, of a module that needs what nobody has named."""
    monkeypatch.setenv("MODEL_PATH", "/model")
    monkeypatch.setenv("API_TOKEN", "secret")
    module = importlib.import_module("tests.field.environment_handlers").__name__
    registry = Registry()
    registry._handlers["plain-needs"] = default_registry["plain-needs"]
    plant = Plant(registry=registry)
    plant.submit(1, "plain-needs")
    plant.subscription.nack([one.ack_id for one in plant.subscription.pull(1, 0)])
    gone = Marker("gone-x", 3, 0, "2026-01-31T12:00:00.000000Z")
    write_attempts(plant.store, "task-0", replace(NONE, in_progress=gone), 0)
    assert plant.worker(HANDLERS=module, BACKLOG=1).run() is ExitReason.SHARE_DONE
    (outcome,) = plant.outcomes()
    assert (outcome.outcome, outcome.result) == ("succeeded", "secret")
