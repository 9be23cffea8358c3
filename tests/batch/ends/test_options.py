"""What clients say of the end of a submission."""

from __future__ import annotations

import pytest

from batch.ends.options import NO_ENDS, End, Ends, Tolerance, ends_of, to_json
from batch.model.errors import MessageRefused


def test_what_is_written_is_read_again() -> None:
    given = {"on_complete": {"task_type": "report", "lane": "bulk", "to": "ops"}, "on_failure": {"webhook": "https://example.com/x"}}
    ends = ends_of({**given, "tolerate": {"count": 3, "percent": 0.5}})
    assert ends == Ends(given["on_complete"], given["on_failure"], Tolerance(3, 0.5))
    assert ends_of(to_json(ends)) == ends
    assert ends_of({}) == NO_ENDS
    assert to_json(NO_ENDS) == {}
    assert not NO_ENDS


@pytest.mark.parametrize(
    ("tolerance", "dead_count", "allowed"),
    [
        (Tolerance(), 0, True),
        (Tolerance(), 1, False),
        (Tolerance(count=2), 2, True),
        (Tolerance(count=2), 3, False),
        (Tolerance(percent=10), 10, True),
        (Tolerance(percent=10), 11, False),
        (Tolerance(count=50, percent=10), 11, False),
        (Tolerance(count=5, percent=10), 6, False),
        (Tolerance(count=0), 1, False),
    ],
)
def test_a_submission_fails_when_either_limit_is_exceeded(tolerance: Tolerance, dead_count: int, allowed: bool) -> None:
    assert tolerance.allows(dead_count, 100) is allowed
    assert Ends(tolerate=tolerance).come_to(dead_count, 100) is (End.COMPLETE if allowed else End.FAILURE)


@pytest.mark.parametrize(("percent", "most", "task_count"), [(0.57, 57, 10_000), (99.96, 9996, 10_000), (0.0001, 1, 1_000_000)])
def test_a_percentage_allows_as_many_as_it_says(percent: float, most: int, task_count: int) -> None:
    assert [Tolerance(percent=percent).allows(count, task_count) for count in (most, most + 1)] == [True, False]


def test_an_empty_submission_is_complete() -> None:
    assert Ends(tolerate=Tolerance(percent=0)).come_to(0, 0) is End.COMPLETE


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"on_complete": "report"}, ["on_complete"]),
        ({"on_complete": {}}, ["on_complete"]),
        ({"on_complete": {"task_type": "report", "webhook": "https://example.com"}}, ["on_complete"]),
        ({"on_failure": {"webhook": 7}}, ["on_failure.webhook"]),
        ({"on_failure": {"task_type": "report", "lane": 7}}, ["on_failure.lane"]),
        ({"tolerate": 5}, ["tolerate"]),
        ({"tolerate": {"count": -1, "percent": 101}}, ["tolerate.count", "tolerate.percent"]),
        ({"tolerate": {"count": True}}, ["tolerate.count"]),
        ({"tolerate": {"percent": float("nan")}}, ["tolerate.percent"]),
        ({"on_complete": 1, "tolerate": {"precent": 1}}, ["on_complete", "tolerate.precent"]),
    ],
)
def test_every_wrong_field_is_named(given: dict[str, object], fields: list[str]) -> None:
    with pytest.raises(MessageRefused) as caught:
        ends_of(given)
    assert list(caught.value.fields) == fields
    assert all(field in str(caught.value) for field in fields)
