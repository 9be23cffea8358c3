"""What a lane knows before a simulation begins is what its workers would have taught it."""

from __future__ import annotations

import pytest

from controller.act.state import load as state_of
from controller.decide.sizing import Rates
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Durations, Fixed, HeavyTail, LogNormal
from controller.simulation.given.scenario import Load, Scenario
from controller.simulation.running import world_of
from controller.simulation.world.seams import outside_of
from controller.simulation.world.taught import teach


def taught(durations: Durations, seed: int, concurrency: int = 1) -> Rates:
    load = Load(((0.0, 1),), durations, concurrency=concurrency)
    scenario = Scenario("taught", (load,), Lag(60.0), StartUp(4.0, 12.0), 60.0, seed)
    outside, _ = outside_of(world_of(scenario))
    teach(outside, load, scenario)
    rates = state_of(outside.store, load.name).state.learned.rates(outside.clock.now())
    assert rates is not None
    return rates


@pytest.mark.parametrize("seed", range(5))
def test_a_start_takes_as_long_as_starts_do_however_long_messages_take(seed: int) -> None:
    assert 4.0 <= taught(LogNormal(20.0, 0.5), seed, concurrency=16).start_up_s <= 12.0


@pytest.mark.parametrize("seed", range(5))
def test_a_straggler_does_not_make_all_messages_slow(seed: int) -> None:
    assert taught(HeavyTail(1.5, 0.01, 1800.0), seed).message_s < 5.0


def test_messages_that_take_the_same_take_that() -> None:
    assert taught(Fixed(3.0), 1).message_s == pytest.approx(3.0)
