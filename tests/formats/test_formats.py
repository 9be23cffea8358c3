"""What lies in tests/formats/0.1 is frozen: today's code reads it, and writes the same, but for fields that came later."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from batch.client.proof import prove
from batch.model.attempts import from_json
from batch.model.delayed import DELAYED as DELAYED_ATTRIBUTE
from batch.model.delayed import Republication, as_first_published, from_object, republication_of
from batch.model.delivery import Delivery
from batch.model.message import Task, decode
from batch.model.names import claim_object, history_end_object, history_object, lane_state_object, manifest_object, submission_object
from batch.model.outcomes import from_lines
from batch.model.progress import from_metadata
from batch.services.claims import claim
from batch.testing import MemoryObjectStore
from controller.act.history import newest
from controller.act.state import load
from controller.decide.decision import from_json as decision_from_json
from tests.formats.written import (
    DECISION,
    DELAYED,
    EXECUTION,
    FAILED,
    FIELDS,
    FOLDER,
    IN_PROGRESS,
    LANE,
    PROGRESS,
    STATE,
    TASK_ID,
    all_written,
)

AT = "2026-01-01T00:00:00.000000Z"
SUBMISSION = "s-20260101-000000-2265b1f5"


def kept(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def delivered(name: str) -> Delivery:
    body = json.loads(kept(name))
    return Delivery("ack", "77", body["data"].encode(), body["attributes"], 1_767_225_600.5)


def read(name: str) -> Task:
    one = delivered(name)
    return decode(one.data, one.attributes, message_id=one.message_id, published_s=one.published_s, lane="elsewhere")


@pytest.mark.parametrize("name", list(all_written()))
def test_it_is_written_as_it_lies_there_but_for_fields_that_came_later(name: str) -> None:
    then, today = (content.decode(errors="surrogateescape") for content in (kept(name), all_written()[name]))
    if name.endswith(".jsonl"):
        assert without_later(list(map(json.loads, then.splitlines())), list(map(json.loads, today.splitlines()))) is None
    elif name.endswith(".json"):
        assert without_later(json.loads(then), json.loads(today)) is None
    else:
        assert today == then


def without_later(then: Any, today: Any, path: str = "") -> str | None:
    """Where today's value lacks or changes something of what was written then; None if it only adds fields."""
    if isinstance(then, dict) and isinstance(today, dict):
        missing = [f"{path}.{key} is gone" for key in then if key not in today]
        pairs = [(value, today[key], f"{path}.{key}") for key, value in then.items() if key in today]
    elif isinstance(then, list) and isinstance(today, list) and len(then) == len(today):
        missing, pairs = [], [(*both, f"{path}[{at}]") for at, both in enumerate(zip(then, today, strict=True))]
    else:
        return None if type(then) is type(today) and then == today else f"{path} was {then!r} and is {today!r}"
    return next((found for found in (*missing, *(without_later(*pair) for pair in pairs)) if found), None)


@pytest.mark.parametrize(
    ("today", "problem"),
    [({"a": [1, {"b": 2}], "c": 3}, None), ({"a": [1, {}]}, ".a[1].b is gone"), ({"a": [1, {"b": True}]}, ".a[1].b was 2 and is True")],
)
def test_a_field_that_is_gone_or_means_something_else_is_told(today: dict[str, Any], problem: str | None) -> None:
    assert without_later({"a": [1, {"b": 2}]}, today) == problem


def test_nothing_else_lies_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(all_written())


@pytest.mark.parametrize(
    ("name", "task_id"),
    [
        ("message-single.json", "91b7584a2265b1f5-rolling-default-2026010100"),
        ("message-single-keyed.json", "e00e38f8-d6d7-5c1d-83c9-e62db15b393d"),
        ("dead-letter.json", "91b7584a2265b1f5-rolling-default-2026010100"),
    ],
)
def test_single_tasks_are_read(name: str, task_id: str) -> None:
    assert read(name) == Task(task_id, "file_processing", AT, FIELDS, "", "default", "rolling-default-2026010100")


def test_a_task_of_a_submission_is_read() -> None:
    task_id, shard = "d8f16adf91b7584a-rolling-default-2026010100", "rolling-default-2026010100"
    assert read("message-submission.json") == Task(task_id, "file_processing", AT, {"filename": "0.csv"}, SUBMISSION, "default", shard)


def test_a_dead_letter_says_why() -> None:
    facts = {"error_type": "unknown_task_type", "reason": "no handler is registered", "attempt_count": "0", "execution": EXECUTION}
    for name in ("dead-letter.json", "dead-letter-raw.json"):
        attributes = delivered(name).attributes
        assert {key: attributes[f"dead_{key}"] for key in facts} == facts
        assert (attributes["task_id"], attributes["dead_index"]) == (TASK_ID, "3")
    assert delivered("dead-letter-raw.json").attributes["dead_raw"] == f"dead/raw/{TASK_ID}-1001"


@pytest.mark.parametrize("name", ["message-delayed.json", "message-republished.json"])
def test_a_message_that_was_published_again_is_known_by_its_first_id(name: str) -> None:
    one = delivered(name)
    assert republication_of(one.attributes) == Republication(1_767_226_401, 1_767_225_600.5, "1001", 1, has_record=True)
    first = as_first_published(one)
    assert (first.message_id, first.published_s, DELAYED_ATTRIBUTE in first.attributes) == ("1001", 1_767_225_600.5, True)


def test_what_waits_in_the_bucket_is_read() -> None:
    assert from_object(kept("delayed.bin")) == DELAYED


def test_attempts_and_progress_are_read() -> None:
    assert from_json(kept("attempts-failed.json")) == FAILED
    assert from_json(kept("attempts-in-progress.json")) == IN_PROGRESS
    assert from_metadata(json.loads(kept("progress-metadata.json"))) == PROGRESS


def test_each_outcome_is_read() -> None:
    outcomes = list(from_lines(kept("outcomes.jsonl")))
    assert [(one.task_id, one.outcome, one.attempt_count) for one in outcomes] == [
        ("a", "succeeded", 1), ("b", "superseded", 2), ("c", "cancelled", 0), ("d", "dead", 6),
    ]  # fmt: skip
    assert {(one.execution, one.index, one.retry) for one in outcomes} == {(EXECUTION, 3, 1)}
    assert (outcomes[0].result, outcomes[0].output) == ({"size": 3, "note": "größer"}, "processed/a.csv")
    assert (outcomes[3].error_type, outcomes[3].reason) == ("ValueError", "ValueError: no such column")


def test_a_submission_is_proved_by_what_lies_there() -> None:
    store = MemoryObjectStore()
    store.write(manifest_object(SUBMISSION, 0), kept("manifest-000000.jsonl"))
    store.write(submission_object(SUBMISSION), kept("submission.json"))
    proof = prove(store, SUBMISSION)
    assert (proof.closed, proof.submitted_count, proof.problems, proof.submitted_at) == (True, 2, (), AT)
    assert proof.missing == ("c386bbc4cd613e30-rolling-default-2026010100", "d8f16adf91b7584a-rolling-default-2026010100")


def test_a_lane_s_state_and_its_history_are_read() -> None:
    store = MemoryObjectStore()
    store.write(lane_state_object(LANE), kept("lane-state.json"))
    body = json.loads(kept("decision.json"))
    found = load(store, LANE).state
    assert found == replace(STATE, unwritten=(replace(STATE.unwritten[0], body=body),), epoch=1)
    assert decision_from_json(body) == DECISION
    at = (LANE, DECISION.decided_at, DECISION.decision_id)
    store.write(history_object(*at), kept("decision.json"))
    store.write(history_end_object(*at), kept("decision-end.json"))
    (merged,) = newest(store, LANE, 1, DECISION.decided_at)
    assert decision_from_json(merged) == replace(DECISION, actual_drain_s=89.5, actual_cost_usd=merged["actual_cost_usd"])


def test_a_claim_is_honoured() -> None:
    store = MemoryObjectStore()
    store.write(claim_object("d-0123456789ab"), kept("claim.json"))
    assert claim(store, "d-0123456789ab", "another-execution") == EXECUTION
