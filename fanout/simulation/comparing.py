"""What a case comes to with Fanout, with what is to be tried, and with rivals. Pure, but for the time that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from types import MappingProxyType
from typing import Any

from batch.model.errors import SettingsError
from controller.observe.jobs import LANE_PREFIX
from controller.simulation.given.scenario import Scenario
from controller.simulation.rival_runs import run_rival
from controller.simulation.rivals import Rival
from controller.simulation.running import Point, Run, in_time_share, lanes_of, run_fanout
from controller.simulation.trials import least_cost_s
from fanout.simulation.case import Case

FANOUT, WHAT_IF = "fanout", "what-if"
ENOUGH_IN_TIME = 0.99
NO_CHANGES: Mapping[str, str] = MappingProxyType({})
ALIKE = 0.001
"""So much less is not fewer in time, and so much cheaper is not cheaper."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one pattern by somebody's rule. `cost_s` are worker-seconds that are paid for, `bound_s` those that nobody could do it
    for; `course` is what it looked like over time, all lanes together."""

    pattern: str
    who: str
    settings: str
    cost_s: float
    cost_usd: float
    bound_s: float
    worker_count: int
    launch_count: int
    empty_count: int
    done_count: int
    late_count: int
    course: tuple[Point, ...] = ()

    @property
    def ratio(self) -> float:
        """The cost as a multiple of the bound."""
        return self.cost_s / self.bound_s if self.bound_s else 1.0

    @property
    def in_time(self) -> float:
        """The share of messages that were done in time."""
        return in_time_of([self])

    def wins_over(self, other: Outcome) -> bool:
        """Whether it is cheaper with no fewer messages in time."""
        return self.cost_s < other.cost_s * (1 - ALIKE) and self.in_time >= other.in_time - ALIKE

    @property
    def body(self) -> dict[str, Any]:
        """As JSON, without the course."""
        names = [name for name in self.__slots__ if name != "course"]
        return {**{name: getattr(self, name) for name in names}, "ratio": round(self.ratio, 4), "in_time": round(self.in_time, 6)}


def in_time_of(outcomes: Iterable[Outcome]) -> float:
    """The share of messages in time, over several runs."""
    runs = list(outcomes)
    return in_time_share(sum(one.done_count for one in runs), sum(one.late_count for one in runs))


def check(scenario: Scenario) -> Scenario:
    """The scenario, whose settings can be. Raises SettingsError."""
    problems = [problem for lane in lanes_of(scenario).values() for problem in lane.problems]
    if problems:
        raise SettingsError(problems)
    return scenario


def fanout_outcome(case: Case, scenario: Scenario, who: str = FANOUT, changes: Mapping[str, str] = NO_CHANGES) -> Outcome:
    """With the real ticks; `changes` are annotations that the scenario has beside the lane's."""
    run = run_fanout(scenario)
    settings = ",".join(f"{key.removeprefix(LANE_PREFIX)}={value}" for key, value in changes.items())
    return _outcome(case, run, who, settings, least_cost_s(run, case.least_start_s))


def outcomes_of(case: Case, rivals: Mapping[str, Sequence[Rival]], told: Callable[[str], None]) -> list[Outcome]:
    """Each pattern by Fanout, with what is to be tried, and by each kind of rival, with the one setting that is best over all patterns.
    `told` is called with what is run next. Raises SettingsError."""
    found: list[Outcome] = []
    tried: dict[str, list[Outcome]] = {}
    variants: dict[str, Mapping[str, str]] = {FANOUT: {}, **({WHAT_IF: case.what_if} if case.what_if else {})}
    checked = {(one.name, who): check(case.scenario(one, changes)) for one in case.patterns for who, changes in variants.items()}
    for (name, who), scenario in checked.items():
        told(f"{name}: {who}")
        found.append(fanout_outcome(case, scenario, who, variants[who]))
        for kind, settings in rivals.items() if who == [*variants][-1] else ():
            told(f"{name}: {kind}")
            for rival in settings:
                tried.setdefault(rival.name, []).append(_outcome(case, run_rival(scenario, rival), kind, rival.name, found[-1].bound_s))
    for settings in rivals.values():
        best: Sequence[Outcome] = min((tried[rival.name] for rival in settings), key=merit)
        found += best
    order = {pattern.name: number for number, pattern in enumerate(case.patterns)}
    return sorted(found, key=lambda one: order[one.pattern])


def wins(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """By who and by whom else: in how many patterns the first wins over the second."""
    cells = {(one.pattern, one.who): one for one in outcomes}
    whos, patterns = dict.fromkeys(who for _, who in cells), dict.fromkeys(pattern for pattern, _ in cells)
    return {
        who: {other: sum(cells[name, who].wins_over(cells[name, other]) for name in patterns) for other in whos if other != who}
        for who in whos
    }


def merit(outcomes: Sequence[Outcome]) -> tuple[int, float]:
    """Lower is better: first in how many patterns too few are in time, then what it costs."""
    return sum(one.in_time < ENOUGH_IN_TIME for one in outcomes), mean(one.ratio for one in outcomes)


def _outcome(case: Case, run: Run, who: str, settings: str, bound_s: float) -> Outcome:
    counts = list(run.counts.values())
    return Outcome(
        run.scenario.name,
        who,
        settings,
        round(run.cost_s, 3),
        round(run.cost_s * case.usd_per_s, 6),
        round(bound_s, 3),
        worker_count=sum(one.worker_count for one in counts),
        launch_count=sum(one.launch_count for one in counts),
        empty_count=run.waste_count,
        done_count=sum(one.done_count for one in counts),
        late_count=sum(one.late_count for one in counts),
        course=tuple(_together(points) for points in zip(*run.courses.values(), strict=False)),
    )


def _together(points: Sequence[Point]) -> Point:
    """Of all lanes, at one moment."""
    return replace(
        points[0],
        undelivered_count=sum(one.undelivered_count for one in points),
        worker_count=sum(one.worker_count for one in points),
        cost_s=sum(one.cost_s for one in points),
    )
