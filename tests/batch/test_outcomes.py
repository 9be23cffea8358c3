"""An outcome survives its line, and of several for one task the same one always holds."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.outcomes import PRECEDENCE, SUBMISSIONS, TOO_MANY, Outcome, counted, counts_in, from_line, from_lines, merged, to_line
from batch.model.result import ResultRefused

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts.filter(bool),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
outcomes = st.builds(
    Outcome,
    task_id=st.sampled_from("abcd"),
    task_type=texts.filter(bool),
    outcome=st.sampled_from(PRECEDENCE),
    finished_at=texts.filter(bool),
    duration_s=st.integers(0, 10**9).map(lambda microseconds: microseconds / 1e6),
    attempt_count=st.integers(0, 99),
    execution=texts,
    index=st.integers(0, 9999),
    retry=st.integers(0, 9),
    message_id=texts,
    output=texts,
    result=json_values,
    error_type=texts,
    reason=texts,
)


@given(outcomes)
def test_an_outcome_comes_back_from_its_line(outcome: Outcome) -> None:
    line = to_line(outcome)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert from_line(line) == outcome


@given(st.lists(outcomes, max_size=10))
def test_lines_of_a_shard_come_back_in_order(many: list[Outcome]) -> None:
    assert list(from_lines(b"\n".join(map(to_line, many)))) == many


@given(st.lists(outcomes, max_size=10), st.randoms(use_true_random=False))
def test_merging_finds_the_same_outcomes_in_any_order(many: list[Outcome], rng: random.Random) -> None:
    shuffled = list(many)
    rng.shuffle(shuffled)
    held = {task_id: one.outcome for task_id, one in merged(many).items()}
    assert {task_id: one.outcome for task_id, one in merged(shuffled).items()} == held
    assert held == {
        task_id: min((one.outcome for one in many if one.task_id == task_id), key=PRECEDENCE.index)
        for task_id in {one.task_id for one in many}
    }


def test_the_first_holds_on_a_tie() -> None:
    one, other = (Outcome("a", "t", "dead", "now", execution=name) for name in "xy")
    assert merged([one, other])["a"] is one
    assert merged([other, one])["a"] is other


@pytest.mark.parametrize(("result", "written"), [({"a": "\ud800"}, {"a": "\\ud800"}), (False, False), ("", None), ({1: 2}, {"1": 2})])
def test_a_result_stands_in_its_line(result: object, written: object) -> None:
    assert json.loads(to_line(Outcome("a", "t", "succeeded", "now", result=result))).get("result") == written


def test_a_dataclass_is_written_as_its_fields() -> None:
    result = json.loads(to_line(Outcome("a", "t", "succeeded", "now", result=Outcome("b", "t", "dead", "now", index=7))))["result"]
    assert (result["task_id"], result["index"]) == ("b", 7)


def test_a_result_that_is_not_json_has_no_line() -> None:
    with pytest.raises(ResultRefused, match=r"result\['when'\] is a datetime: .* value\.isoformat\(\)"):
        to_line(Outcome("a", "t", "succeeded", "now", result={"when": datetime(2026, 1, 1, tzinfo=UTC)}))


def test_an_unknown_outcome_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be one of succeeded, superseded, cancelled, dead"):
        Outcome("a", "t", "lost", "now")


@pytest.mark.parametrize("line", [b"", b"{", b"{}", b'{"task_id": "a"}', b"[]", b"5", b"null", b'"text"', b"\xff"])
def test_a_line_that_is_no_outcome_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own error is one of them)
        from_line(line)


@pytest.mark.parametrize(
    "value",
    [
        {"task_id": [1]},
        {"finished_at": 5},
        {"execution": 5},
        {"fingerprint": {}},
        {"error_type": None},
        {"index": "a"},
        {"replay_number": "1"},
        {"replay_number": True},
        {"duration_s": "x"},
        {"duration_s": float("nan")},
        {"result": float("inf")},
    ],
)
def test_a_line_with_a_value_that_no_outcome_has_is_an_error(value: dict[str, object]) -> None:
    body = {"task_id": "a", "task_type": "t", "outcome": "dead", "finished_at": "now"}
    assert from_line(json.dumps(body).encode()).outcome == "dead"
    with pytest.raises(ValueError):  # noqa: PT011 (json's own error is one of them)
        from_line(json.dumps(body | value).encode())


def test_the_metadata_counts_by_outcome_and_in_a_shared_shard_by_submission() -> None:
    ended = [("succeeded", "s-1"), ("succeeded", "s-1"), ("dead", "s-1"), ("succeeded", "s-2"), ("cancelled", "")]
    own, shared = counted("s-1", ended), counted("rolling-default-2026013112", ended)
    assert counted("s-1", ended[:3]) == {"succeeded": "2", "dead": "1"}
    assert (counts_in(counted("s-1", ended[:3]), "s-2", "s-1"), counts_in({}, "s-2", "s-1")) == ({}, None)
    assert counts_in(own, "s-2", "s-1") == {"succeeded": 1}, "a task under a key, which was first submitted there"
    assert counts_in(own, "s-1", "s-1") == {"succeeded": 3, "dead": 1, "cancelled": 1}
    assert counts_in(shared, "s-1", "rolling-default-2026013112") == {"succeeded": 2, "dead": 1}
    assert counts_in(shared, "s-2", "rolling-default-2026013112") == {"succeeded": 1}
    assert counts_in(shared, "another", "rolling-default-2026013112") == {}


def test_more_submissions_than_the_metadata_holds_are_told_by_the_content_alone() -> None:
    shard = "rolling-default-2026013112"
    found = counted(shard, [("succeeded", f"s-20260131-120000-{number:08x}") for number in range(300)])
    assert found == {"succeeded": "300", SUBMISSIONS: TOO_MANY}
    assert counts_in(found, "s-20260131-120000-00000001", shard) is None
    assert counts_in({"succeeded": "3"}, "s-1", shard) is None
    assert counts_in({"succeeded": "three"}, "s-1", "s-1") is None
