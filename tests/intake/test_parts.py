"""Parts of open submissions over ASGI: adding, closing, keys of their own, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from batch.client.proof import prove
from batch.model.errors import DependencyUnavailable, ServiceRefused
from batch.testing import MemoryObjectStore
from intake.submissions import bulk
from tests.intake.test_service import Service, assert_refused, serve
from tests.intake.test_submissions import array, assert_once, lines, messages, numbers, receipt

KEY = {"Idempotency-Key": "part-1"}


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore("bucket")


async def opened(service: Service, query: str = "") -> str:
    got = receipt(await service.post(f"/submissions?open=true{query}", lines(3)))
    assert (got["accepted_count"], got["closed"], got["status"]) == (3, False, "open")
    submission_id: str = got["submission_id"]
    return submission_id


def test_parts_are_one_submission_until_it_is_closed(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        submission_id = await opened(service, "&lane=urgent")
        path = f"/submissions/{submission_id}"
        got = receipt(await service.post(f"{path}/tasks", array(2)))
        assert (got["submission_id"], got["lane"], got["accepted_count"], got["status"]) == (submission_id, "urgent", 2, "open")
        assert not prove(store, submission_id).closed
        closed = receipt(await service.post(f"{path}/close", b""))
        assert (closed["accepted_count"], closed["closed"], closed["status"]) == (5, True, "submitted")
        assert receipt(await service.post(f"{path}/close", b"")) == closed
        for body in (lines(1), b""):
            assert_refused(await service.post(f"{path}/tasks", body), 409, "is closed", "0 tasks of this request")
        assert len(messages(service, "urgent")) == 5
        assert {message.attributes["shard"] for message in messages(service, "urgent")} == {submission_id}
        assert (prove(store, submission_id).submitted_count, prove(store, submission_id).problems) == (5, ())

    serve(scenario, store=store)


def test_an_open_submission_may_begin_empty(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        submission_id = receipt(await service.post("/submissions?open=true", b""))["submission_id"]
        receipt(await service.post(f"/submissions/{submission_id}/tasks", lines(4)))
        assert receipt(await service.post(f"/submissions/{submission_id}/close", b""))["accepted_count"] == 4

    serve(scenario, store=store)


def test_what_was_submitted_closed_takes_no_part_and_may_be_closed_again(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        got = receipt(await service.post("/submissions", lines(3)))
        path = f"/submissions/{got['submission_id']}"
        assert_refused(await service.post(f"{path}/tasks", lines(3)), 409, "is closed")
        assert receipt(await service.post(f"{path}/close", b"")) == got

    serve(scenario, store=store)


@pytest.mark.parametrize("submission_id", ["s-nothing", "..%2f..%2fcontroller", "a" * 2000, "%00", "ü"])
def test_an_unknown_submission_is_404(store: MemoryObjectStore, submission_id: str) -> None:
    async def scenario(service: Service) -> None:
        for what in ("tasks", "close"):
            assert (await service.post(f"/submissions/{submission_id}/{what}", lines(1))).status_code == 404

    serve(scenario, store=store)


def test_wrong_options_of_a_part_are_named(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        path = f"/submissions/{await opened(service)}/tasks"
        told = assert_refused(await service.post(f"{path}?open=true&accept=x", lines(1)), 422)
        assert sorted(one["pointer"] for one in told["errors"]) == ["?accept", "?open"]

    serve(scenario, store=store)


def test_a_part_with_a_key_is_added_once(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        submission_id = await opened(service)
        path = f"/submissions/{submission_id}/tasks"
        first = await service.post(path, lines(10, first=3), headers=KEY)
        again = await service.post(path, lines(10, first=3), headers=KEY)
        assert receipt(first) == receipt(again)
        assert again.headers["idempotent-replayed"] == "true"
        assert_refused(await service.post(path, lines(9, first=3), headers=KEY), 422, "another body")
        other = await opened(service)
        receipt(await service.post(f"/submissions/{other}/tasks", lines(9), headers=KEY))
        assert receipt(await service.post(f"/submissions/{submission_id}/close", b""))["accepted_count"] == 13
        assert len(messages(service)) == 13 + 12
        assert receipt(await service.post(path, lines(10, first=3), headers=KEY)) == receipt(first), "also once it is closed"

    serve(scenario, store=store)


def test_a_part_that_failed_in_the_middle_is_completed_by_its_repeat(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "TASKS_PER_PART", 100)

    async def scenario(service: Service) -> None:
        submission_id = await opened(service)
        path = f"/submissions/{submission_id}/tasks"
        service.topics["default"].error = DependencyUnavailable("the broker is away")
        told = assert_refused(await service.post(path, lines(250, first=3), headers=KEY), 503)
        assert (told["accepted_count"], told["uncertain"]) == (0, [1, 100])
        service.topics["default"].error = None
        assert receipt(await service.post(path, lines(250, first=3), headers=KEY))["accepted_count"] == 250
        receipt(await service.post(f"/submissions/{submission_id}/close", b""))
        assert_once(service, store, submission_id, 253)
        assert numbers(service)[-1] == 252

    serve(scenario, store=store)


def test_a_closing_in_the_middle_of_a_part_is_told_exactly(store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "TASKS_PER_PART", 100)

    async def scenario(service: Service) -> None:
        topic = service.topics["default"]
        submission_id = receipt(await service.post("/submissions?open=true", b""))["submission_id"]
        adding = asyncio.create_task(service.post(f"/submissions/{submission_id}/tasks", lines(250)))
        await topic.arrived(1)
        closed = receipt(await service.post(f"/submissions/{submission_id}/close", b""))
        assert closed["accepted_count"] == 100
        topic.open()
        told = assert_refused(await adding, 409, "100 tasks of this request are published, the others are not")
        assert (told["accepted_count"], told["submission_id"]) == (100, submission_id)
        assert_once(service, store, submission_id, 100)

    serve(scenario, held=True, store=store)


def test_a_bucket_that_fails_while_closing_is_told(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        submission_id = await opened(service)
        for method in ("write", "list", "read"):
            store.fail_next(method, DependencyUnavailable("the bucket is away"))
            assert_refused(await service.post(f"/submissions/{submission_id}/close", b""), 503, "the bucket is away")
        assert receipt(await service.post(f"/submissions/{submission_id}/close", b""))["accepted_count"] == 3

    serve(scenario, store=store)


def test_a_manifest_that_lost_its_metadata_is_named(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        submission_id = await opened(service)
        name = f"submissions/{submission_id}/manifest-000000.jsonl"
        store.write(name, store.read(name))
        assert_refused(await service.post(f"/submissions/{submission_id}/close", b""), 500, f"manifest {name}", "set `tasks`")
        store.patch_metadata(name, {"tasks": "3"})
        assert receipt(await service.post(f"/submissions/{submission_id}/close", b""))["accepted_count"] == 3

    serve(scenario, store=store)


def test_a_receipt_that_cannot_be_kept_is_told(store: MemoryObjectStore) -> None:
    """As by a retention policy, which lets nothing be replaced."""
    write = store.write

    def refusing(name: str, data: bytes, **options: Any) -> Any:
        if name.startswith("keys/") and options["if_generation"]:
            raise ServiceRefused("the bucket's retention policy keeps the object")
        return write(name, data, **options)

    store.write = refusing  # type: ignore[method-assign]

    async def scenario(service: Service) -> None:
        told = assert_refused(await service.post("/submissions", lines(3), headers=KEY), 500, "3 tasks are published", "retention")
        assert told["accepted_count"] == 3

    serve(scenario, store=store)


def test_two_parts_at_once_are_two_parts(store: MemoryObjectStore) -> None:
    async def scenario(service: Service) -> None:
        submission_id = await opened(service)
        path = f"/submissions/{submission_id}"
        await asyncio.gather(*(service.post(f"{path}/tasks", lines(20)) for _ in range(4)))
        assert receipt(await service.post(f"{path}/close", b""))["accepted_count"] == 83
        assert len({json.loads(message.data)["task_id"] for message in messages(service)}) == 83

    serve(scenario, store=store)
