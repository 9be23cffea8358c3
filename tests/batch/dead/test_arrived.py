"""What arrives on the dead-letter subscription may have anything in its attributes: it becomes a letter, and nothing raises."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from batch.dead.draining.arrived import arrived, judged
from batch.dead.letters import from_body, to_line
from batch.model.attempts import AttemptError, Attempts
from batch.model.delivery import Delivery
from batch.model.names import RESERVED_LANES, dead_raw_object, dead_segment_object, outcome_object
from batch.model.outcomes import from_line
from batch.model.outcomes import to_line as outcome_line
from tests.batch.dead.letterbox import LANE, body

NAMES = [
    *("task_id", "task_type", "shard", "lane", "submission_id", "replay", "delayed", "googclient_x"),
    *(f"dead_{name}" for name in ("error_type", "reason", "attempt_count", "execution", "index", "lane", "first", "raw", "returned")),
    *(f"CloudPubSubDeadLetterSource{name}" for name in ("Subscription", "DeliveryCount", "TopicPublishTime")),
]
VALUES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.sampled_from(["-1", "1e400", "9" * 1000, "lane-sub", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+23:59", "../x", "dead/raw/../x"]),
    st.sampled_from(["9999999999.000000 m", "0000000000 9999999999.000000 m 1 1", "999999 9999999999.000 x", "raw", "\0"]),
)
HALVES = b'{"task_id": "\\ud800", "task_type": "\\ud800"}'
DATA = st.one_of(st.binary(max_size=50), st.sampled_from([body("one"), HALVES, b"[" * 99999]))
ERROR = AttemptError("2026-01-01T00:00:00Z", "KeyError", "'x'", "lane-x", 0)


@given(data=DATA, attributes=st.dictionaries(st.sampled_from(NAMES), VALUES), failed=st.booleans())
def test_whatever_arrives_becomes_a_letter(data: bytes, attributes: dict[str, str], failed: bool) -> None:
    delivery = Delivery("ack", "77", data, attributes, 1_767_225_600.0)
    came = arrived(delivery, {LANE.name: LANE})
    found = judged(came, Attempts(2, 0.0, (ERROR, ERROR)) if failed else Attempts())
    letter = found.letter
    assert letter.data == data
    assert from_body(json.loads(to_line(letter))) == letter
    assert from_line(outcome_line(found.outcome("dl", 0, 0))).task_id == letter.task_id
    assert letter.lane not in RESERVED_LANES - {"unknown"}
    names = [
        dead_segment_object(letter.lane, 0.0, "w", 0),
        dead_raw_object(letter.task_id, "77"),
        outcome_object(letter.shard, 0.0, "w", 0),
    ]
    assert [name.count("/") for name in names] == [2, 2, 3]
    assert letter.raw_object == "" or letter.raw_object.count("/") == 2
    assert found.returned is None or (came.by_net and not letter.kept_because)
