"""A message that waited in the bucket comes back as it was, whatever it holds; its object's name tells when it is due and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch.model.delayed import (
    DELAYED,
    DelayedMessage,
    Republication,
    as_first_published,
    as_outgoing,
    asks_bucket,
    concerns_filter,
    due_of,
    from_object,
    published_again,
    republication_of,
    to_object,
)
from batch.model.delivery import MAX_ATTRIBUTES, Delivery, near_net
from batch.model.names import DAMAGED, MAX_ID_BYTES, damaged_object, delayed_folder, delayed_object, delayed_parts

texts = st.text(max_size=20)
due_times = st.integers(0, 9_999_999_999)
MAX_ATTRIBUTE_VALUE_BYTES = 1024
EVERYTHING = bytes(range(256))


def message(data: bytes = b"{}", attributes: Mapping[str, str] | None = None, message_id: str = "77") -> DelayedMessage:
    return DelayedMessage("id-1", message_id, 1_767_225_600.25, attributes or {}, data)


@given(st.binary(max_size=200), st.dictionaries(texts, texts, max_size=5), texts, texts, st.floats(0, 4e9))
@example(b"", {}, "", "", 0.0)
@example(EVERYTHING, {"a\nb": "\n"}, "x", "\u2028", 1.5)
def test_a_message_comes_back_as_it_was(data: bytes, attributes: dict[str, str], task_id: str, message_id: str, published_s: float) -> None:
    one = DelayedMessage(task_id, message_id, published_s, attributes, data)
    assert from_object(to_object(one)) == one
    assert to_object(DelayedMessage(task_id, message_id, published_s, dict(reversed(attributes.items())), data)) == to_object(one)


def test_nine_megabytes_come_back_as_they_were() -> None:
    one = message(EVERYTHING * 36_000)
    assert from_object(to_object(one)) == one


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"{}",
        b"[]\nx",
        b"[" * 100_000,
        to_object(message(b"abc"))[:-1],
        to_object(message(b"abc")) + b"x",
        to_object(message()).replace(b'"format":1', b'"format":2'),
        to_object(message(attributes={"a": "b"})).replace(b'"b"', b"7"),
        EVERYTHING,
    ],
)
def test_what_is_damaged_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a delayed message"):
        from_object(body)


@given(due_times, texts, texts)
@example(0, "a/b", "../..")
@example(1, "..", "")
@example(1, "\ud800", "\ud800")
@example(1, "ü" * 500, "x")
def test_a_name_stays_in_its_folder_and_tells_time_and_task(due: int, task_id: str, message_id: str) -> None:
    name = delayed_object("lane", due, task_id, message_id)
    rest = name.removeprefix(delayed_folder("lane"))
    assert name != rest
    assert "/" not in rest
    assert len(damaged_object(name).encode()) < 1024
    assert damaged_object(name).startswith(DAMAGED)
    parts = delayed_parts(name)
    if task_id:
        assert parts is not None
        assert parts[0] == due
        assert parts[1] == task_id or len(task_id.encode("utf-8", "replace")) * 3 > MAX_ID_BYTES or "\ud800" in task_id


@given(st.lists(st.tuples(st.floats(0, 9e9), st.sampled_from(["a", "z-9", "0000000000"])), max_size=20))
def test_names_sort_by_the_second_that_is_due(waits: list[tuple[float, str]]) -> None:
    names = sorted(delayed_object("lane", not_before, task_id, "m") for not_before, task_id in waits)
    assert [parts[0] for parts in map(delayed_parts, names) if parts] == sorted(ceil(not_before) for not_before, _ in waits)


def test_one_message_has_one_name_for_one_time_and_others_have_others() -> None:
    made = {delayed_object("lane", due, task, mid) for due in (5.2, 5.9, 6.0, 6.1) for task in ("t", "t-1") for mid in ("1", "1-1")}
    assert len(made) == 2 * 2 * 2


def test_only_our_attribute_is_added_and_pubsubs_own_are_left_to_it() -> None:
    one = as_outgoing(message(b"\xff", {"task_id": "id-1", "shard": "s-1", "googclient_x": "1"}), 1_767_229_200)
    assert one.data == b"\xff"
    assert dict(one.attributes) == {"task_id": "id-1", "shard": "s-1", DELAYED: "1767229200 1767225600.250000 77 1 1"}


def test_a_message_with_all_its_attributes_comes_back_without_ours() -> None:
    full = {f"a{number}": "x" for number in range(MAX_ATTRIBUTES)}
    assert as_outgoing(message(attributes=full), 5).attributes == full
    parked_before = {**dict(list(full.items())[1:]), DELAYED: "1767225600 1767225000.000000 70"}
    assert due_of(as_outgoing(message(attributes=parked_before), 1_767_229_200).attributes) == 1_767_229_200


def test_a_task_that_is_parked_again_stays_the_message_that_it_was_first() -> None:
    attributes = as_outgoing(message(message_id="first"), 1_767_229_200).attributes
    found = as_first_published(Delivery("ack", "second", b"{}", attributes, 1_767_229_201.0, 1))
    assert (found.ack_id, found.message_id, found.published_s) == ("ack", "first", 1_767_225_600.25)
    assert due_of(attributes) == 1_767_229_200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "nan 1.0 1",
        "1767229200 1.0",
        "1767229200 1.000000 a/b",
        "1767229200 1.000000 ../x",
        "17672292000 1.000000 7",
        "1767229200 1.000000 7 1",
    ],
)
def test_what_others_write_into_our_attribute_means_nothing(value: str) -> None:
    delivery = Delivery("ack", "7", b"{}", {DELAYED: value}, 5.0, 1)
    assert as_first_published(delivery) is delivery
    assert due_of(delivery.attributes) == 0.0
    assert not asks_bucket(delivery)


# --- published again by a worker


@given(
    due_times, st.floats(0, 4e9), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:~-]{0,255}", fullmatch=True), st.integers(1, 10**8), st.booleans()
)
def test_the_attribute_is_read_as_it_was_written(due: int, published_s: float, message_id: str, count: int, has_record: bool) -> None:
    one = Republication(due, round(published_s, 6), message_id, count, has_record)
    found = republication_of({DELAYED: str(one)})
    assert found is not None
    assert replace(found, published_s=one.published_s) == one
    assert found.published_s == pytest.approx(one.published_s)
    assert len(str(one)) <= MAX_ATTRIBUTE_VALUE_BYTES


@pytest.mark.parametrize("has_record", [True, False])
def test_a_message_stays_the_one_that_it_was_first_however_often_it_is_published_again(has_record: bool) -> None:
    delivery = Delivery("ack", "first", b"data", {"color": "red", "googclient_x": "1"}, 5.5, 80)
    for number in range(1, 4):
        outgoing = published_again(delivery, 7.2 + number, has_record=has_record)
        assert outgoing is not None
        assert (outgoing.data, dict(outgoing.attributes)) == (
            b"data",
            {"color": "red", DELAYED: f"{8 + number:010d} 5.500000 first {number} {int(has_record)}"},
        )
        delivery = Delivery("ack", f"later-{number}", outgoing.data, outgoing.attributes, 100.0 + number, 1)
        assert asks_bucket(delivery) == has_record
        assert asks_bucket(replace(delivery, delivery_attempt=2))
        assert asks_bucket(replace(delivery, delivery_attempt=0))


def test_a_message_without_room_for_the_attribute_is_not_published_again() -> None:
    full = {f"a{number}": "x" for number in range(MAX_ATTRIBUTES)}
    delivery = Delivery("ack", "7", b"", full, 5.0, 80)
    assert published_again(delivery, 0.0, has_record=False) is None
    again = published_again(replace(delivery, attributes={**full, "googclient_x": "1"} | {DELAYED: ""}), 0.0, has_record=False)
    assert again is None, "one that has our attribute had room, but this one has a hundred beside it"
    del full["a7"]
    assert published_again(replace(delivery, attributes={**full, "googclient_x": "1"}), 0.0, has_record=False) is not None
    assert published_again(replace(delivery, attributes={**full, DELAYED: ""}), 0.0, has_record=False) is not None


@pytest.mark.parametrize(("limit", "first"), [(5, 3), (6, 3), (10, 5), (39, 20), (40, 20), (41, 21), (100, 80)])
def test_from_which_delivery_on_a_message_is_published_again(limit: int, first: int) -> None:
    assert near_net(limit) == first


def test_without_a_dead_letter_policy_there_is_no_need_to() -> None:
    assert near_net(0) is None


@pytest.mark.parametrize(
    ("message_filter", "expected"),
    [
        ("", False),
        ("NOT attributes:delayed", True),
        ('attributes.lane = "x" AND -attributes:"delayed"', True),
        ('hasPrefix(attributes.delayed, "1")', True),
        ("attributes : delayed", True),
        ('attributes.lane = "delayed"', False),
        ("attributes:delayed_since", False),
        ("attributes:undelayed", False),
    ],
)
def test_which_filters_tell_what_is_published_again_from_the_rest(message_filter: str, expected: bool) -> None:
    assert concerns_filter(message_filter) is expected
