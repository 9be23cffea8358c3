"""What is encoded is decoded unchanged, and no bytes at all can do worse than be refused."""

from __future__ import annotations

import json
import random
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.clock import from_iso, iso
from batch.model.errors import MessageRefused
from batch.model.message import (
    ENVELOPE,
    MAX_MESSAGE_BYTES,
    Task,
    decode,
    encode,
    keyed_task_id,
    new_task_id,
    readable_task_id,
    shard_in_id,
    shard_of,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,40}", fullmatch=True)
shards = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True)
times = st.integers(0, 1_767_225_600_000_000).map(lambda microseconds: iso(microseconds / 1e6))
fields = st.dictionaries(texts.filter(lambda name: name not in ENVELOPE), json_values, max_size=5)
tasks = st.builds(
    Task,
    task_id=ids,
    task_type=texts.filter(bool),
    submitted_at=times,
    fields=fields,
    submission_id=ids | st.just(""),
    lane=ids,
    shard=shards,
)
attributes = st.dictionaries(st.sampled_from(["task_id", "task_type", "submission_id", "lane", "shard", "other"]), texts, max_size=4)


def decoded(data: bytes, given_attributes: dict[str, str]) -> Task:
    return decode(data, given_attributes, message_id="77", published_s=1_767_225_600.5, lane="here")


@given(tasks)
def test_a_task_comes_back_as_it_was_sent(task: Task) -> None:
    data, sent = encode(task)
    assert decoded(data, sent) == task


@given(tasks, st.dictionaries(st.sampled_from(ENVELOPE), json_values, min_size=1))
def test_a_clients_field_never_overrides_the_envelope(task: Task, forged: dict[str, Any]) -> None:
    disguised = Task(task.task_id, task.task_type, task.submitted_at, {**task.fields, **forged}, task.submission_id, task.lane, task.shard)
    data, sent = encode(disguised)
    assert decoded(data, sent) == task
    assert (sent["task_id"], sent["task_type"]) == (task.task_id, task.task_type)


@given(st.binary(max_size=200) | texts.map(str.encode) | json_values.map(lambda value: json.dumps(value).encode()), attributes)
def test_any_bytes_become_a_task_or_are_refused(data: bytes, given_attributes: dict[str, str]) -> None:
    kind = ""
    try:
        assert decoded(data, given_attributes).task_type
    except MessageRefused as refused:
        kind = refused.kind
    assert kind in ("", "not_json", "not_an_object", "no_task_type")
    assert readable_task_id(data, given_attributes, "77")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"task_type": "a"', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not_json"),
        (b'["task_type"]', "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "no_task_type"),
        (b'{"task_type": ""}', "no_task_type"),
        (b'{"task_type": 7}', "no_task_type"),
    ],
)
def test_each_refusal_has_its_kind(data: bytes, kind: str) -> None:
    with pytest.raises(MessageRefused) as raised:
        decoded(data, {})
    assert raised.value.kind == kind
    assert len(str(raised.value)) < 500


def test_a_foreign_message_gets_an_envelope() -> None:
    task = decoded(b'{"task_type": "a", "task_id": "../up", "x": 1}', {})
    assert task == Task("message-77", "a", "2026-01-01T00:00:00.500000Z", {"x": 1}, lane="here", shard="rolling-here-2026010100")


@given(texts)
def test_a_shard_is_always_one_folder(named: str) -> None:
    shard = shard_of({"shard": named}, lane="here", published_s=0.0)
    assert shard
    assert "/" not in shard
    assert shard not in (".", "..")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", "\ud800"])
def test_what_cannot_be_json_is_refused(value: object) -> None:
    with pytest.raises(MessageRefused, match="cannot be written as JSON") as raised:
        encode(Task("1", "a", iso(0), {"x": value}))
    assert raised.value.kind == "invalid"


def test_what_is_too_large_to_travel_is_refused() -> None:
    with pytest.raises(MessageRefused, match="9000000"):
        encode(Task("1", "a", iso(0), {"x": "x" * MAX_MESSAGE_BYTES}))


def test_ids_are_random_or_follow_from_lane_and_key() -> None:
    rng = random.Random(1)
    made = {new_task_id(rng, "s-1") for _ in range(1000)}
    assert len(made) == 1000
    assert {shard_in_id(one) for one in made} == {"s-1"}
    keyed = [keyed_task_id(lane, key) for lane, key in (("a", "k"), ("a", "k"), ("b", "k"), ("a", "l"))]
    assert keyed[0] == keyed[1]
    assert len(set(keyed)) == 3
    assert {uuid.UUID(one).version for one in keyed} == {5}
    assert {shard_in_id(one) for one in keyed} == {None}


@given(st.lists(st.integers(0, 4_000_000_000_000_000), min_size=2, max_size=5))
def test_times_as_text_sort_like_times(microseconds: list[int]) -> None:
    written = [iso(one / 1e6) for one in sorted(microseconds)]
    assert written == sorted(written)
    assert [iso(from_iso(one)) for one in written] == written
