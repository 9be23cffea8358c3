"""Moving the clocks: what makes no sense is refused and leaves every service as it was."""

from __future__ import annotations

import httpx
import pytest

from local_cloud.clock import LATEST_S
from tests.local_cloud.manual_clock import ManualClock
from tests.support import Service

BAD = [b"", b"[]", b"{", b"null", b'"5"', b'{"seconds": "x"}', b'{"seconds": null}', b'{"seconds": -1}', b'{"seconds": NaN}',
       b'{"seconds": "nan"}', b'{"seconds": "inf"}', b'{"seconds": 1e300}', b'{"seconds": 1e999}', b"\xff", b"[" * 100_000]  # fmt: skip


@pytest.mark.parametrize("name", ["pubsub", "storage", "run"])
def test_each_service_refuses_steps_that_lead_nowhere(name: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(f"local_{name}")
    before = httpx.get(f"{service.http}/clock").json()["now"]
    for body in BAD:
        answer = httpx.post(f"{service.http}/clock/advance", content=body)
        assert (answer.status_code, "a number, 0 or more" in answer.json()["error"]) == (400, True), body
    assert 0 <= httpx.get(f"{service.http}/clock").json()["now"] - before < 3600


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e300, LATEST_S])
def test_a_clock_that_refuses_stands_where_it_was(seconds: float) -> None:
    clock = ManualClock()
    before = clock.now()
    with pytest.raises(ValueError, match=r"only moves forward|year 3000"):
        clock.advance(seconds)
    assert clock.now() == before


def test_a_clock_goes_to_its_last_second() -> None:
    clock = ManualClock()
    assert clock.advance(LATEST_S - clock.now()) == LATEST_S
