"""Whatever text a handler raises, returns, logs or notes (half a character, a NUL, a megabyte, none at all): its task ends as it should,
and the reason can be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch.model.attempts import from_json
from batch.model.clock import iso
from batch.model.exit import ExitReason
from batch.model.outcomes import Outcome, merged
from batch.model.texts import MAX_TEXT_CHARS, plain
from tests.batch.worker.plant import Plant
from tests.field import odd_handlers
from tests.field.odd_handlers import ENDINGS, KINDS, Loud, Text

HALF = "half \ud83d"
ODD = st.text(st.one_of(st.characters(), st.sampled_from("\ud83d\udc00\0\n\u2028\x1b")), max_size=30)
WAYS = tuple(way for way in ENDINGS if way != "payload")


def run_all(texts: Sequence[str], ways: Sequence[str] = WAYS, kinds: Sequence[str] = KINDS, **fields: Any) -> tuple[Plant, list[Outcome]]:
    """Each text in each way in each kind of handler, through one worker; the tasks' outcomes."""
    plant = Plant(registry=odd_handlers.ODD)
    count = 0
    for number, text in enumerate(texts):
        for way in ways:
            for kind in kinds:
                body = {"task_id": f"{way}.{kind}.{number}", "task_type": f"odd-{kind}", "way": way, "text": text, **fields}
                plant.publish(json.dumps({**body, "submitted_at": iso(plant.clock.now())}).encode(), shard="s-1")
                count += 1
    worker = plant.worker(HANDLERS=odd_handlers.__name__, PROCESSES=1, MAX_MESSAGES=20 * count, DRAIN_AFTER_S="0.1")
    assert worker.run() is ExitReason.DRAINED
    return plant, list(merged(plant.outcomes()).values())


def check(plant: Plant, outcomes: Sequence[Outcome], caplog: pytest.LogCaptureFixture) -> None:
    faults = [vars(record) for record in caplog.records if vars(record).get("event") == "runner_fault"]
    assert not faults, faults[0]
    assert {one.task_id: one.outcome for one in outcomes} == {one.task_id: ENDINGS[one.task_id.split(".")[0]] for one in outcomes}
    for one in outcomes:
        (one.reason + one.error_type + json.dumps(one.result, ensure_ascii=False)).encode()
        assert "\0" not in one.reason
    for name in plant.store.names("attempts/"):
        assert from_json(plant.store.read(name)).attempt_count == 1, name
    for letter in plant.letters():
        "".join(letter.values()).encode()


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ODD, min_size=1, max_size=4))
@example([HALF, "\ud83d\ude00 \udc00", "\0", ""])
@pytest.mark.slow
def test_any_text_in_any_way_in_any_kind_of_handler(caplog: pytest.LogCaptureFixture, texts: list[str]) -> None:
    caplog.clear()
    plant, outcomes = run_all(texts)
    assert len(outcomes) == len(texts) * len(WAYS) * len(KINDS)
    check(plant, outcomes, caplog)


@pytest.mark.parametrize("way", ["raise", "permanent", "retry", "supersede"])
def test_half_a_character_is_shown_in_the_reason(way: str, caplog: pytest.LogCaptureFixture) -> None:
    plant, outcomes = run_all([HALF], [way])
    check(plant, outcomes, caplog)
    assert len(outcomes) == len(KINDS)
    assert all(r"half \ud83d" in one.reason for one in outcomes)
    assert all(r"half \ud83d" in letter["dead_reason"] for letter in plant.letters())
    for name in plant.store.names("attempts/"):
        (error,) = from_json(plant.store.read(name)).errors
        assert way != "raise" or error.traceback.endswith("ValueError: half \\ud83d\n")


def test_a_result_with_half_a_character_can_be_read_by_any_json_reader(caplog: pytest.LogCaptureFixture) -> None:
    plant, outcomes = run_all([HALF], ["return", "key"])
    check(plant, outcomes, caplog)
    assert [one.result for one in outcomes if one.task_id.startswith("return")] == [{"said": r"half \ud83d"}] * len(KINDS)
    assert [one.result for one in outcomes if one.task_id.startswith("key")] == [{r"half \ud83d": r"half \ud83d"}] * len(KINDS)


@pytest.mark.parametrize("odd", [None, 5, ["list"], {"a": 1}])
def test_an_error_whose_text_is_no_text(odd: Any, caplog: pytest.LogCaptureFixture) -> None:
    plant, outcomes = run_all(["x"], ["odd_error"], odd=odd)
    check(plant, outcomes, caplog)
    assert {one.reason for one in outcomes} == {"OddError, whose text cannot be had"}


@pytest.mark.slow
def test_a_huge_text_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    plant, outcomes = run_all(["\ud83d" * 400_000], ["raise", "log", "extra", "note", "print"])
    check(plant, outcomes, caplog)
    assert len(outcomes) == 5 * len(KINDS)
    assert max(len(plant.store.read(name)) for name in plant.store.names("attempts/")) < 20_000


def test_a_payload_error_with_half_a_character(caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant(registry=odd_handlers.ODD)
    for number, text in enumerate([HALF, "\0", "plain"]):
        plant.publish(json.dumps({"task_id": f"t-{number}", "task_type": "odd-payload", "way": f"payload{text}"}).encode())
        plant.publish(json.dumps({"task_id": f"u-{number}", "task_type": "odd-payload", "way": "x", "text": {text: text}}).encode())
        plant.publish(json.dumps({"task_id": f"v-{number}", "task_type": "odd-payload", "way": "return", "text": text}).encode())
    assert plant.worker(MAX_MESSAGES=100, DRAIN_AFTER_S="0.1").run() is ExitReason.DRAINED
    check_no_fault(caplog)
    final = merged(plant.outcomes())
    assert {task_id: (one.outcome, one.error_type) for task_id, one in final.items() if task_id[0] in "tu"} == {
        f"{one}-{number}": ("dead", "invalid") for one in "tu" for number in range(3)
    }
    assert r"half \ud83d" in final["t-0"].reason


def check_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    assert not [record for record in caplog.records if vars(record).get("event") == "runner_fault"]


# --- the one function


class Metered(str):
    def __str__(self) -> str:
        return Metered("its own text")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("as it is", "as it is"),
        ("ü\n\t", "ü\n\t"),
        (HALF, r"half \ud83d"),
        ("a\0b", r"a\x00b"),
        (Text("kept"), "kept"),
        (Metered("x"), "its own text"),
        (Loud(), "a Loud, whose text cannot be had"),
        (7, "7"),
        (b"\xff", r"b'\xff'"),
    ],
)
def test_the_one_function_of_texts(value: object, expected: str) -> None:
    got = plain(value)
    assert (got, type(got)) == (expected, str)


@given(st.one_of(ODD, st.binary(), st.integers(), st.none()), st.integers(0, 40))
def test_it_always_gives_a_text_that_can_be_written(value: object, limit: int) -> None:
    got = plain(value, limit)
    got.encode()
    assert type(got) is str
    assert "\0" not in got
    assert len(got) <= limit
    assert plain(got, limit) == got
    assert len(plain("x" * (MAX_TEXT_CHARS + 1))) == MAX_TEXT_CHARS
