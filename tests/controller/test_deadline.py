"""A deadline below what the gauge may be late is told, with what to do."""

from __future__ import annotations

import pytest

from controller.decide.sizing import Rates
from controller.lanes.deadline import unmet_by_gauge
from tests.controller.fakes import lane


@pytest.mark.parametrize(
    ("drain_within_s", "start_up_s", "poked", "unmet"),
    [
        (120.0, None, False, True),
        (120.0, None, True, False),
        (189.0, None, False, True),
        (190.0, None, False, False),
        (190.0, 40.0, False, True),
        (300.0, 40.0, False, False),
        (600.0, None, False, False),
    ],
)
def test_a_deadline_is_unmet_if_the_gauge_and_the_start_take_longer(
    drain_within_s: float, start_up_s: float | None, poked: bool, unmet: bool
) -> None:
    rates = None if start_up_s is None else Rates(message_s=1.0, start_up_s=start_up_s)
    said = unmet_by_gauge(lane(drain_within_s=drain_within_s), rates, poked=poked)
    assert bool(said) is unmet


def test_it_says_why_and_what_to_do() -> None:
    said = unmet_by_gauge(lane(drain_within_s=120.0), None, poked=False)
    assert said == (
        "fanout/drain-within is 2 min and cannot be met by the gauge alone: the gauge may be 3 min late, and a worker takes 10 s to start; "
        "submit through a front door with CONTROLLER_URL, which tells the controller at once, or set fanout/drain-within to 5m or more"
    )
