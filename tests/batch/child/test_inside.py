"""Inside a child: what becomes of a result before it travels."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from batch.child import inside as inside_module
from batch.child.inside import Inside
from batch.child.wire import Link
from batch.handling.answer import Answer, Said
from batch.handling.registry import Handler, Kind
from batch.model import outcomes


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    for module in (inside_module, outcomes):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 300)
    ours, theirs = socket.socketpair()
    link = Link(ours)
    made = Inside(link)
    yield made
    link.close()
    theirs.close()


def plain(inside: Inside, result: Any, kind: Kind = Kind.PROCESS) -> Answer:
    return inside._plain(Answer(Said.RETURNED, result), Handler("x", print, kind=kind))


def test_a_result_that_is_too_large_stays_there(inside: Inside) -> None:
    assert plain(inside, {"n": 1}).result == {"n": 1}
    left_out = plain(inside, "x" * 1000).result
    assert list(left_out) == ["left_out"]
    assert "at most 300 are kept" in left_out["left_out"]


def test_what_is_not_json_is_a_failed_attempt(inside: Inside) -> None:
    answer = plain(inside, {"a": b"1"})
    assert (answer.said, answer.error_type) == (Said.FAILED, "TypeError")
    assert answer.reason.startswith("result['a'] is bytes: return a text")


@pytest.mark.parametrize(
    ("results", "said", "told"),
    [
        ([7], Said.RETURNED, ""),
        ([ValueError("its own")], Said.FAILED, "its own"),
        ([], Said.FAILED, "for its one task"),
        ([1, 2], Said.FAILED, "for its one task"),
        (None, Said.FAILED, "for its one task"),
    ],
)
def test_a_group_of_one(inside: Inside, results: Any, said: Said, told: str) -> None:
    answer = plain(inside, results, Kind.GROUP)
    assert answer.said is said
    assert told in answer.reason
    assert answer.result == (7 if said is Said.RETURNED else None)
