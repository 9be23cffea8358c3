"""A worker on a bucket with Requester Pays, a retention policy or a hold, as the local cloud carries them out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from batch.handling.registry import Registry
from batch.model.errors import DependencyForbidden, ServiceRefused
from batch.model.exit import ExitReason
from batch.model.outcomes import Outcome, from_lines, merged
from batch.services.objects import GoogleObjectStore
from batch.services.transport import PASSING_TRIES
from batch.worker.life import Worker
from tests.batch.worker.isolated import submit
from tests.batch.worker.plant import Plant
from tests.field import services_handlers
from tests.field.services_handlers import KINDS, known
from tests.local_cloud.fault_orders import Orders
from tests.seams.conftest import create_bucket
from tests.support import Service


@pytest.fixture
def bucket(local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """As its owner sees it."""
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    create_bucket(local_storage, project, f"bucket-{project}")
    with closing(storage.Client(project=project)) as client:
        yield client.get_bucket(f"bucket-{project}")


def change(bucket: Any, **settings: Any) -> None:
    for name, value in settings.items():
        setattr(bucket, name, value)
    bucket.patch()


def store_of(bucket: Any, **options: Any) -> Any:
    return closing(GoogleObjectStore(bucket.name, project="p", timeout_s=5.0, **options))


def worker_on(
    store: GoogleObjectStore, *calls: str, kind: str = "bucket-thread", execution: str = "x", share: int = 0
) -> tuple[Plant, Worker]:
    registry = Registry()
    registry._handlers.update(known(kind))
    plant = Plant(registry=registry)
    plant.store = store  # type: ignore[assignment]
    for call in calls:
        submit(plant, call, kind, call=call)
    return plant, plant.worker(BACKLOG=share or len(calls), HANDLERS=services_handlers.__name__, PROCESSES=1, CLOUD_RUN_EXECUTION=execution)


def outcomes(store: GoogleObjectStore) -> dict[str, Outcome]:
    return merged(line for info in store.list("outcomes/") for line in from_lines(store.read(info.name)))


def test_with_requester_pays_a_worker_says_what_to_set_and_works_once_it_is_set(bucket: Any) -> None:
    change(bucket, requester_pays=True)
    with store_of(bucket) as unpaid:
        plant, worker = worker_on(unpaid, "bytes")
        assert worker.run() is ExitReason.BROKEN
        assert "set BILLING_PROJECT to a project" in worker.shutdown.breaker.reason
        assert plant.subscription.backlog == 1
    with store_of(bucket, billing_project="payer") as paid:
        plant, worker = worker_on(paid, "bytes", "read in")
        paid.write("in", b"xyz")
        assert worker.run() is ExitReason.SHARE_DONE
        assert {one.outcome for one in outcomes(paid).values()} == {"succeeded"}
        assert paid.delete("in")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_retention_policy_keeps_is_the_tasks_own_failure(bucket: Any, kind: str) -> None:
    with store_of(bucket) as store:
        store.write("out/bytes", b"older")  # a person put it there: an older task's would be replaced
        change(bucket, retention_period=3600)
        _plant, worker = worker_on(store, "bytes", "bytearray", kind=kind)
        assert worker.run() is ExitReason.SHARE_DONE
        found = outcomes(store)
        assert found["bytearray"].outcome == "succeeded"
        assert (found["bytes"].outcome, found["bytes"].error_type) == ("dead", "ServiceRefused")
        assert "a retention policy keeps the object that is there" in found["bytes"].reason
        assert store.read("out/bytes") == b"older"


def test_a_redelivered_task_finds_its_own_output_kept(bucket: Any) -> None:
    with store_of(bucket) as store:
        change(bucket, retention_period=3600)
        for execution in ("first", "second"):
            _plant, worker = worker_on(store, "bytes", execution=execution)
            assert worker.run() is ExitReason.SHARE_DONE
        assert {one.outcome for one in outcomes(store).values()} == {"succeeded"}


def test_where_attempts_cannot_be_recorded_the_worker_says_so_and_the_task_stays(bucket: Any) -> None:
    with store_of(bucket) as store:
        change(bucket, retention_period=3600)
        plant, worker = worker_on(store, "fail", "bytes", kind="bucket-patient", share=9)
        assert worker.run() is ExitReason.BROKEN
        assert "a retention policy keeps the object that is there" in worker.shutdown.breaker.reason
        assert "attempts/fail.json" in worker.shutdown.breaker.reason
        assert (plant.subscription.backlog, [*outcomes(store)]) == (1, ["bytes"])


def test_a_hold_names_the_command_that_ends_it(bucket: Any) -> None:
    with store_of(bucket) as store:
        store.write("held", b"x")
        blob = bucket.blob("held")
        blob.temporary_hold = True
        blob.patch()
        command = f"gcloud storage objects update 'gs://{bucket.name}/held' --no-temporary-hold"
        with pytest.raises(ServiceRefused, match=command):
            store.write("held", b"y")
        with pytest.raises(ServiceRefused, match=command):
            store.delete("held")
        blob.temporary_hold = False
        blob.patch()
        assert store.delete("held")


def test_a_lost_race_without_a_precondition_is_no_end_of_a_worker(bucket: Any, local_storage: Service, project: str) -> None:
    """The first write of a worker, that of its progress, has no precondition. One that is refused for ever breaks the worker, which does
    not crash."""
    orders = Orders(local_storage.http, project)
    with store_of(bucket) as store:
        orders.add("objects.insert", "precondition_failed")
        _plant, worker = worker_on(store, "bytes", execution="w")
        assert worker.run() is ExitReason.SHARE_DONE
        for _ in range(1 + PASSING_TRIES):
            orders.add("objects.insert", "precondition_failed")
        plant, worker = worker_on(store, "bytes")
        assert worker.run() is ExitReason.BROKEN
        assert "cannot write object workers/" in worker.shutdown.breaker.reason
        assert worker.shutdown.fault is None
        assert plant.subscription.backlog == 1
        _plant, worker = worker_on(store, "bytes", execution="y")
        assert worker.run() is ExitReason.SHARE_DONE


def test_the_local_cloud_asks_who_pays_for_objects_only(bucket: Any) -> None:
    change(bucket, requester_pays=True)
    with store_of(bucket) as store, pytest.raises(DependencyForbidden, match="BILLING_PROJECT"):
        list(store.list(""))
    change(bucket, requester_pays=False)
    with store_of(bucket) as store:
        assert list(store.list("")) == []
