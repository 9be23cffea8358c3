"""Messages of others become tasks: which form a message has, what its task says, and that its id stays."""

from __future__ import annotations

import base64
import itertools
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch.formats.forms import NAMESPACES, Forms
from batch.formats.kinds import CLOUD_EVENT, ENVELOPE, EVENT_TYPES, FORMATS, NOTIFICATION, RAW
from batch.formats.read import EventUnwanted
from batch.model.deadletters import REPLAY, Replay
from batch.model.delayed import as_first_published, published_again
from batch.model.delivery import Delivery, Outgoing
from batch.model.errors import MessageRefused
from batch.model.message import ENVELOPE_FORM, Task, decode, encode
from batch.testing import cloud_event, notification, raw, structured

AT = 1_769_860_800.0
ALL = Forms(FORMATS, "work", EVENT_TYPES, "lane-sub")


def task_of(message: Outgoing, forms: Forms = ALL, message_id: str = "77") -> Task:
    return forms.decode(message.data, message.attributes, message_id=message_id, published_s=AT, lane="lane")


def refusal(message: Outgoing, forms: Forms) -> MessageRefused:
    with pytest.raises(MessageRefused) as caught:
        task_of(message, forms)
    return caught.value


def only(form: str, **more: Any) -> Forms:
    return Forms((form,), **{"default_type": "work", "subscription": "lane-sub", **more})


def test_a_lane_of_envelopes_decodes_with_decode_itself() -> None:
    assert Forms().decode is decode
    assert ENVELOPE_FORM == ENVELOPE
    assert not Forms().foreign


def test_raw_bytes_are_a_task_of_the_default_type() -> None:
    task = task_of(
        raw(b"Message number 1\xff", colour="red", task_type="fanout.webhook", lane="x", shard="blue", task_id="mine"), only(RAW)
    )
    assert (task.task_type, task.data, task.fields, task.form) == ("work", b"Message number 1\xff", {}, RAW)
    assert task.attributes == {"colour": "red"}
    assert task.task_id == str(uuid.uuid5(uuid.UUID(NAMESPACES[RAW]), "lane-sub\n77"))
    assert (task.submitted_at, task.lane, task.shard) == ("2026-01-31T12:00:00.000000Z", "lane", "rolling-lane-2026013112")


def test_an_envelope_on_a_raw_lane_is_bytes() -> None:
    data, attributes = encode(Task("t-1", "greet", "2026-01-31T12:00:00.000000Z", {"name": "Ada"}))
    assert task_of(Outgoing(data, attributes), only(RAW)).data == data


def test_a_notification_has_the_object_in_its_fields() -> None:
    message = notification(
        "photos", "a/b.jpg", size=1234, content_type="image/jpeg", metageneration=3, custom_attributes={"site": "berlin"}
    )
    task = task_of(message, only(NOTIFICATION))
    assert task.fields == {
        "bucket": "photos",
        "name": "a/b.jpg",
        "generation": "1700000000000001",
        "metageneration": "3",
        "event_type": "OBJECT_FINALIZE",
        "event_time": "2026-01-31T12:00:00.000000Z",
        "size": 1234,
        "content_type": "image/jpeg",
        "custom_attributes": {"site": "berlin"},
    }
    assert task.data == message.data
    name = "lane-sub\nphotos/a/b.jpg#1700000000000001#3#OBJECT_FINALIZE"
    assert task.task_id == str(uuid.uuid5(uuid.UUID(NAMESPACES[NOTIFICATION]), name))


def test_a_notification_without_the_resource_knows_no_size() -> None:
    task = task_of(notification("photos", "a", with_resource=False), only(NOTIFICATION))
    assert (task.fields["size"], task.fields["metageneration"], task.data) == (None, "", b"")


def test_two_changes_of_metadata_are_two_tasks_also_without_the_resource() -> None:
    forms = only(NOTIFICATION, event_types=EVENT_TYPES)
    first = notification("photos", "a", event_type="OBJECT_METADATA_UPDATE", with_resource=False)
    later = Outgoing(b"", {**first.attributes, "eventTime": "2026-01-31T12:00:05.000000Z"})
    assert task_of(first, forms).task_id == task_of(first, forms, "78").task_id != task_of(later, forms).task_id


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"objectId": ""}, "without the attributes objectId"),
        ({"payloadFormat": "XML"}, "payloadFormat must be JSON_API_V1 or NONE, got 'XML'"),
    ],
)
def test_a_notification_that_lacks_something_dies_with_the_reason(changed: Mapping[str, str], reason: str) -> None:
    message = notification("photos", "a")
    assert reason in str(refusal(Outgoing(message.data, {**message.attributes, **changed}), ALL))


def test_an_event_type_that_the_lane_does_not_name_is_unwanted() -> None:
    with pytest.raises(EventUnwanted, match="'OBJECT_DELETE' is none that this lane runs: OBJECT_FINALIZE") as caught:
        task_of(notification("photos", "a", event_type="OBJECT_DELETE"), only(NOTIFICATION))
    assert caught.value.task.fields["name"] == "a"


def test_an_event_in_binary_mode() -> None:
    task = task_of(cloud_event(b'{"a":1}', type="com.example.done", source="//shop", id="o-1", subject="order"), only(CLOUD_EVENT))
    fields = {"specversion": "1.0", "id": "o-1", "source": "//shop", "type": "com.example.done", "subject": "order"}
    assert task.fields == fields | {"datacontenttype": "application/json"}
    assert (task.data, task.task_type, task.form) == (b'{"a":1}', "work", CLOUD_EVENT)
    assert task.task_id == str(uuid.uuid5(uuid.UUID(NAMESPACES[CLOUD_EVENT]), "lane-sub\n//shop\no-1"))


@pytest.mark.parametrize(
    ("more", "data"),
    [
        ({"data": {"a": [1, "é"]}}, '{"a":[1,"é"]}'.encode()),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text"),
        ({"data": "text"}, b'"text"'),
        ({"data": "text", "datacontenttype": "application/problem+json; charset=utf-8"}, b'"text"'),
        ({"data_base64": base64.b64encode(b"\x00\xff").decode()}, b"\x00\xff"),
        ({"data": None}, b""),
        ({}, b""),
    ],
)
def test_an_event_in_structured_mode(more: Mapping[str, Any], data: bytes) -> None:
    task = task_of(structured({"id": "o-1", "source": "//shop", "type": "done", "count": 3, **more}), only(CLOUD_EVENT))
    assert task.data == data
    assert (task.fields["id"], task.fields["count"]) == ("o-1", 3)
    assert not {"data", "data_base64"} & task.fields.keys()
    assert task.task_id == task_of(cloud_event(b"", type="x", source="//shop", id="o-1"), only(CLOUD_EVENT)).task_id


def test_without_a_default_type_an_events_own_type_is_the_tasks() -> None:
    forms = only(CLOUD_EVENT, default_type="")
    assert task_of(cloud_event(b"", type="com.example.done"), forms).task_type == "com.example.done"
    assert "only Fanout publishes" in str(refusal(cloud_event(b"", type="fanout.webhook"), forms))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (structured({"specversion": "0.3", "id": "1", "source": "s", "type": "t"}), "specversion must be 1.x, got '0.3'"),
        (structured({"id": "1", "source": "s"}), "without type"),
        (structured({"id": "1", "source": "s", "type": "t", "data": 1, "data_base64": ""}), "data or data_base64, not both"),
        (structured({"id": "1", "source": "s", "type": "t", "data_base64": "%"}), "no base64"),
        (raw(b"[]", **{"content-type": "application/cloudevents-batch+json"}), "publish each event by itself"),
        (raw(b"x", **{"Content-Type": "application/cloudevents+json"}), "not JSON"),
        (raw(b"x", **{"ce-id": "1"}), "specversion must be 1.x, got None"),
        (raw(b"x"), "ce-specversion"),
    ],
)
def test_what_is_no_event_dies_with_the_reason(message: Outgoing, reason: str) -> None:
    assert reason in str(refusal(message, only(CLOUD_EVENT)))


def test_where_several_are_accepted_the_first_form_that_is_found_decides() -> None:
    event = cloud_event(b"{}", type="t")
    assert task_of(notification("b", "o")).form == NOTIFICATION
    assert (
        task_of(Outgoing(event.data, {**event.attributes, **notification("b", "o").attributes, "payloadFormat": "NONE"})).form
        == NOTIFICATION
    )
    assert task_of(event).form == CLOUD_EVENT
    greet = raw(b'{"task_type":"greet","name":"Ada"}')
    assert (task_of(greet).form, task_of(greet).task_type) == (ENVELOPE, "greet")
    assert [task_of(raw(one)).form for one in (b'{"task_type":3}', b'{"a":1}', b"[1]", b"", b"\xff")] == [RAW] * 5
    assert task_of(notification("b", "o"), Forms((ENVELOPE, RAW), "work")).form == RAW


def test_what_none_of_the_accepted_forms_is_says_which_are() -> None:
    assert "this lane takes envelope, gcs-notification" in str(refusal(raw(b"x"), Forms((ENVELOPE, NOTIFICATION), "work")))
    error = refusal(raw(b"x"), Forms((NOTIFICATION, CLOUD_EVENT), "work"))
    assert error.kind == "not_accepted"
    assert "a bucket's notification" in str(error)


def test_fanouts_own_tasks_come_through_where_no_envelope_does_and_lies_do_not() -> None:
    data, attributes = encode(Task("t-1", "fanout.webhook", "2026-01-31T12:00:00.000000Z", {"webhook": "https://example.com"}))
    for forms in (only(RAW), only(CLOUD_EVENT), ALL):
        assert task_of(Outgoing(data, attributes), forms).task_type == "fanout.webhook"
    assert task_of(Outgoing(data, {}), only(RAW)).task_type == "work"
    assert task_of(Outgoing(b"x", attributes), only(RAW)).task_type == "work"
    assert "only Fanout publishes" in str(refusal(Outgoing(data, {}), ALL))
    assert "only Fanout publishes" in str(refusal(raw(b"x"), only(RAW, default_type="fanout.finish")))


def test_a_replay_keeps_id_and_shard_also_on_a_lane_with_another_subscription() -> None:
    message = raw(b"x", colour="red")
    first = task_of(message)
    named = {**message.attributes, "task_id": first.task_id, "shard": first.shard, REPLAY: str(Replay(2, AT, "r-1"))}
    again = task_of(Outgoing(message.data, named), replace(ALL, subscription="other"), "99")
    assert (again.task_id, again.shard, again.replay_number) == (first.task_id, first.shard, 2)
    assert again.attributes == {"colour": "red"}


def test_what_is_refused_has_an_id_of_its_own_whatever_its_publisher_wrote() -> None:
    facts = {"published_s": AT, "lane": "lane"}
    ids = set()
    for message_id in ("77", "78"):
        task, problem = only(CLOUD_EVENT).told(b'{"task_id":"same"}', {"task_id": "same"}, message_id=message_id, **facts)  # type: ignore[arg-type]
        assert (task.task_type, task.form) == ("work", RAW)
        assert problem
        ids.add(task.task_id)
    assert len(ids) == 2


@given(st.text(max_size=40).filter(lambda text: text.isprintable()))
def test_ids_are_uuids_of_version_5_and_never_change(message_id: str) -> None:
    assert task_of(raw(b"x"), message_id=message_id).task_id == str(uuid.uuid5(uuid.UUID(NAMESPACES[RAW]), f"lane-sub\n{message_id}"))
    assert task_of(raw(b"x")).task_id == "3451fcd6-c45b-52ab-95e6-337dc1180c47"
    assert task_of(notification("b", "o")).task_id == "c64c4d3b-eae1-58a5-ac60-7fcff6e439fb"
    assert task_of(cloud_event(b"", type="t", source="//s", id="1")).task_id == "f4f62305-3784-5d71-ab2d-82c01318fd9f"


PART = st.text("a#/\n%:é☃1", min_size=1, max_size=6)


@given(st.lists(st.tuples(PART, PART), min_size=2, max_size=2, unique=True))
@example([("a\nb", "c"), ("a", "b\nc")])
def test_events_of_different_source_or_id_are_different_tasks(pairs: list[tuple[str, str]]) -> None:
    ids = {task_of(cloud_event(b"", type="t", source=source, id=id)).task_id for source, id in pairs}
    assert len(ids) == len({(source.replace("\n", "%0A"), id) for source, id in pairs})


WHAT = st.tuples(PART, st.integers(1, 12), st.integers(1, 12), st.sampled_from(EVENT_TYPES))


@given(st.lists(WHAT, min_size=2, max_size=2, unique=True))
@example([("x#1#2#OBJECT_FINALIZE", 1, 2, "OBJECT_FINALIZE"), ("x", 1, 2, "OBJECT_FINALIZE")])
@example([("x#1", 2, 3, "OBJECT_FINALIZE"), ("x", 1, 2, "OBJECT_FINALIZE")])
def test_changes_of_different_objects_are_different_tasks_whatever_the_objects_are_called(found: list[tuple[str, int, int, str]]) -> None:
    messages = [notification("b", name, generation=str(one), metageneration=two, event_type=event) for name, one, two, event in found]
    assert len({task_of(one).task_id for one in messages}) == 2


@given(
    st.permutations(
        [("ce-id", "1"), ("CE-ID", "2"), ("Ce-Id", "3"), ("content-type", "text/plain"), ("Content-Type", "a/b"), ("CONTENT-TYPE", "c/d")]
    )
)
def test_in_whatever_order_pubsub_tells_the_attributes_it_is_the_same_task(pairs: list[tuple[str, str]]) -> None:
    rest = {"ce-specversion": "1.0", "ce-source": "s", "ce-type": "t"}
    task = task_of(Outgoing(b"", dict(pairs) | rest))
    assert (task.fields["id"], task.fields["datacontenttype"]) == ("1", "text/plain")


def test_a_handler_cannot_put_attributes_into_the_envelopes_of_others() -> None:
    task = task_of(raw(b'{"task_type":"greet"}'), Forms())
    with pytest.raises(TypeError, match="a dict of your own"):
        task.attributes |= {"a": "b"}  # type: ignore[misc,operator]
    with pytest.raises(TypeError, match="a dict of your own"):
        task.attributes["a"] = "b"  # type: ignore[index]
    assert task_of(raw(b'{"task_type":"greet"}'), Forms()).attributes == {}


def test_an_event_nested_as_deep_as_can_be_read_is_a_task_or_refused() -> None:
    """Reading and writing JSON reach their limits at different depths."""
    for depth in range(960, 1010):
        data = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + b"[" * depth + b"]" * depth + b"}"
        task, problem = ALL.told(data, {"content-type": "application/cloudevents+json"}, message_id="1", published_s=AT, lane="lane")
        assert (task.data == b"[" * depth + b"]" * depth) is not bool(problem)


NAMES = st.sampled_from(
    [
        *notification("b", "o").attributes,
        *cloud_event(b"", type="t").attributes,
        "Content-Type",
        "CE-ID",
        "task_id",
        "task_type",
        "shard",
        "lane",
        "replay",
        "delayed",
        "x",
    ]
)
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "application/cloudevents+json",
            "application/cloudevents-batch+json",
            "1.0",
            "JSON_API_V1",
            "NONE",
            *EVENT_TYPES,
            "fanout.webhook",
            "1 1769860800.000 r-1",
            "1769860800 1769860800.000000 12 1 0",
        ]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "task_id",
                    "task_type",
                    "specversion",
                    "id",
                    "source",
                    "type",
                    "data",
                    "data_base64",
                    "size",
                    "metageneration",
                    "datacontenttype",
                ]
            ),
            inner,
            max_size=8,
        ),
    ),
    max_leaves=12,
)
BYTES = st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode()))
ACCEPT = st.sampled_from([one for size in range(1, 5) for one in itertools.combinations(FORMATS, size)])


@given(BYTES, st.dictionaries(NAMES, VALUES, max_size=12), ACCEPT, st.sampled_from(["", "work", "fanout.finish", "é\ud800"]))
@example(
    b'{"specversion":"1.0","id":"\\ud800","source":"s","type":"t"}', {"content-type": "application/cloudevents+json"}, (CLOUD_EVENT,), ""
)
@example(b"[" * 20_000, {"content-type": "application/cloudevents+json"}, FORMATS, "work")
@example(b"[" * 20_000, dict(notification("b", "o").attributes), FORMATS, "work")
def test_any_message_gives_a_task_or_is_refused_and_keeps_its_id(
    data: bytes, attributes: dict[str, str], accept: tuple[str, ...], default_type: str
) -> None:
    forms = Forms(accept, default_type, ("OBJECT_FINALIZE",), "lane-sub")
    first = as_first_published(Delivery("a-1", "77", data, attributes, AT))
    known = _read(forms, first)
    forms.type_of(data, attributes)
    message = published_again(first, AT + 700, has_record=False)
    assert message is not None
    again = as_first_published(Delivery("a-2", "99", message.data, message.attributes, AT + 701))
    assert _read(forms, again) == known


def _read(forms: Forms, delivery: Delivery) -> tuple[str, str, str, bool]:
    """Id, type, shard, and whether it is a task."""
    task, problem = forms.told(delivery.data, delivery.attributes, **_facts(delivery))
    try:
        decoded = forms.decode(delivery.data, delivery.attributes, **_facts(delivery))
    except EventUnwanted as unwanted:
        decoded = unwanted.task
    except MessageRefused:
        return task.task_id, task.task_type, task.shard, False
    assert (decoded, problem) == (task, "")
    assert decoded.task_type == delivery.attributes.get("task_type") or not decoded.task_type.startswith("fanout.") or not forms.foreign
    return task.task_id, task.task_type, task.shard, True


def _facts(delivery: Delivery) -> dict[str, Any]:
    return {"message_id": delivery.message_id, "published_s": delivery.published_s, "lane": "lane"}
