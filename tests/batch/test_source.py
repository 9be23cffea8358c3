"""Tasks in files: whatever stands where a piece of the file ends, they are what a parser of the whole would read."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.client import source
from batch.client.source import is_array, tasks_in
from batch.client.strict import MAX_DEPTH, Strict
from batch.client.submit import NewTask, Refusal
from batch.model.errors import MessageRefused

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TASKS = st.lists(st.dictionaries(st.text(max_size=5).filter(lambda name: name not in ("task_type", "idempotency_key")), VALUES, max_size=4))


def read(data: bytes) -> list[Any]:
    return [one.fields if isinstance(one, NewTask) else one for one in tasks_in(io.BytesIO(data))]


@settings(max_examples=30)
@given(tasks=TASKS, piece=st.integers(1, 50), indent=st.sampled_from([None, 1]), escaped=st.booleans())
def test_an_array_is_read_as_a_whole_would_be(tasks: list[dict[str, Any]], piece: int, indent: int | None, escaped: bool) -> None:
    data = json.dumps(tasks, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass" if escaped else "replace")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(source, "PIECE", piece)
        assert is_array(io.BytesIO(data))
        assert read(data) == json.loads(data)


@settings(max_examples=30)
@given(tasks=TASKS, cut=st.integers(1, 400), piece=st.integers(1, 50))
def test_an_array_that_is_cut_is_refused(tasks: list[dict[str, Any]], cut: int, piece: int) -> None:
    data = json.dumps(tasks).encode()[: -min(cut, len(json.dumps(tasks)) - 1)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(source, "PIECE", piece)
        with pytest.raises(MessageRefused, match="the array breaks at item"):
            read(data)


@settings(max_examples=30)
@given(tasks=TASKS)
def test_lines_are_read_one_by_one(tasks: list[dict[str, Any]]) -> None:
    data = b"".join(json.dumps(one).encode() + b"\r\n\n" for one in tasks)
    assert not is_array(io.BytesIO(data))
    found = list(tasks_in(io.BytesIO(data)))
    assert [one.fields for one in found if isinstance(one, NewTask)] == tasks
    assert [one.position for one in found] == [2 * number + 1 for number in range(len(tasks))]


@pytest.mark.parametrize("data", [b"", b" \n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf []", b" [ ] "])
def test_there_may_be_no_task(data: bytes) -> None:
    assert read(data) == []


def test_a_mark_of_the_byte_order_is_no_part_of_a_task() -> None:
    assert read(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}') == [{"a": 1}, {"a": 2}]
    assert read(b'\xef\xbb\xbf[{"a": 1}]') == [{"a": 1}]


def test_a_line_that_is_too_long_does_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_ITEM", 100)
    monkeypatch.setattr(source, "PIECE", 10)
    for size in (70, 88, 89, 90, 91, 99, 100, 101, 1000):
        first, second = read(b'{"a": "%s"}\n{"a": 2}' % (b"x" * size))
        assert second == {"a": 2}
        assert isinstance(first, Refusal) == (size + 10 > 100), size


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "a": 1}', "stands twice"),
        ('{"b": {"a": 1, "c": 2, "a": 1}}', "'a' stands twice"),
        ("[NaN]", "NaN"),
        ("-Infinity", "-Infinity"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested"),
    ],
)
def test_what_parsers_read_differently_is_a_problem(text: str, problem: str) -> None:
    strict = Strict()
    _, end, found = strict.value(text)
    assert end == len(text)
    assert problem in found
    assert strict.value("[" * MAX_DEPTH + "]" * MAX_DEPTH)[2] == ""
    assert strict.value(json.dumps([[]] * 500))[2] == ""


def test_to_find_a_name_that_stands_twice_takes_one_look_at_each() -> None:
    text = "{" + ",".join(f'"a{number}":0' for number in range(100_000)) + ',"b":0,"b":1}'
    began_at = time.monotonic()
    assert "'b' stands twice" in Strict().value(text)[2]
    assert time.monotonic() - began_at < 30, "looked for each among all, it takes minutes, and no other request gets the processor"


@pytest.mark.parametrize("piece", range(1, 9))
def test_a_number_is_not_taken_for_two(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(source, "PIECE", piece)
    assert [one.position for one in read(b"[123456, 7, 1.5e3]")] == [1, 2, 3]
