"""A simulation, and a tick, cost no more than what changes: huge backlogs go in larger pieces, and rates are computed once a decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from controller.decide.rates import Learned
from controller.decide.sizing import Rates
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Fixed
from controller.simulation.given.patterns import Pattern, batch
from controller.simulation.running import Run, run_fanout
from controller.simulation.trials import Setting, scenario_of
from controller.simulation.world import world


@dataclass
class _Counted:
    """Each message takes 0.05 s; counts how often a thread took some."""

    pieces: list[int] = field(default_factory=list)

    def draw(self, rng: Random, at_s: float) -> float:
        return 0.05

    def draw_sum(self, rng: Random, number: int, at_s: float) -> float:
        self.pieces.append(number)
        return 0.05 * number

    def mean(self, at_s: float) -> float:
        return 0.05


def _drained(durations: _Counted) -> Run:
    setting = Setting(Lag(60.0), StartUp(4.0, 12.0), {"fanout/drain-within": "4m", "fanout/max-workers": "50"}, concurrency=8)
    return run_fanout(scenario_of(Pattern("huge", batch(100_000), durations, horizon_s=600.0), setting, 1))


def test_many_threads_take_more_at_a_time_and_cost_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = _Counted(), _Counted()
    usual = _drained(few)
    monkeypatch.setattr(world, "MANY_THREADS", 4)
    coarse = _drained(many)
    assert usual.counts["huge"].done_count == coarse.counts["huge"].done_count == 100_000
    assert len(many.pieces) < 0.4 * len(few.pieces)
    assert coarse.cost_s == pytest.approx(usual.cost_s, rel=0.02)
    assert [one.workers for one in coarse.decisions] == [one.workers for one in usual.decisions]


def test_the_rates_of_a_lane_are_computed_once_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    real = Learned.rates

    def counted(self: Learned, now: float, quantile: float = 0.8) -> Rates | None:
        asked.append(now)
        return real(self, now, quantile)

    monkeypatch.setattr(Learned, "rates", counted)
    setting = Setting(Lag(60.0), StartUp(4.0, 12.0))
    run = run_fanout(scenario_of(Pattern("small", batch(2000), Fixed(1.0), horizon_s=600.0), setting, 1))
    assert run.counts["small"].launch_count
    assert len(asked) == len(set(asked))
