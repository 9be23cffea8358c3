"""`fanout tune`: it finds what is cheapest and in time, says how many runs that took, and stops when its time is over."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping

import pytest
from click.testing import Result

from fanout.simulation.comparing import Outcome
from fanout.simulation.tune import command
from fanout.simulation.tuning import MAX_WAIT, MAX_WORKERS, Target, tuned
from tests.controller.fakes import World
from tests.fanout.simulation.conftest import Past

TARGET = Target(0.99, 600.0)


class Lane:
    """A lane that costs less the longer it waits and the fewer workers it has, and is late beyond a wait and below a number of workers."""

    def __init__(self, longest_wait_s: float, fewest_workers: int) -> None:
        self.longest_wait_s, self.fewest_workers = longest_wait_s, fewest_workers
        self.runs: list[tuple[Mapping[str, str], int]] = []

    def __call__(self, changes: Mapping[str, str], seed: int) -> Outcome:
        self.runs.append((changes, seed))
        wait_s = float(changes.get(MAX_WAIT, "0s")[:-1])
        workers = int(changes.get(MAX_WORKERS, "64"))
        is_late = wait_s > self.longest_wait_s or workers < self.fewest_workers
        cost_s = 2000 - wait_s + workers
        return Outcome("a", "fanout", "", cost_s, cost_s / 1000, 1000.0, 1, 1, 0, 1000, 500 if is_late else 0)


def test_the_longest_wait_and_the_fewest_workers_that_are_in_time() -> None:
    lane = Lane(longest_wait_s=460, fewest_workers=10)
    found = tuned(lane, TARGET, (0, 64), (1, 2, 3), lambda: False)
    assert dict(found.after.changes) == {"fanout/drain-within": "600s", MAX_WAIT: "450s", MAX_WORKERS: "16"}
    assert (found.is_met, found.is_complete, found.run_count) == (True, True, len(lane.runs))
    assert len(lane.runs) < 20
    assert {seed for changes, seed in lane.runs if changes == found.after.changes} == {1, 2, 3}
    assert found.after.cost_usd < found.before.cost_usd


def test_never_fewer_workers_than_the_lane_must_have() -> None:
    assert tuned(Lane(600, 1), TARGET, (20, 64), (1,), lambda: False).after.changes[MAX_WORKERS] == "32"


def test_more_workers_where_no_wait_meets_the_target() -> None:
    found = tuned(Lane(600, 100), TARGET, (0, 64), (1,), lambda: False)
    assert (found.is_met, found.after.changes[MAX_WORKERS]) == (True, "128")


def test_where_nothing_is_in_time_what_comes_nearest_is_told() -> None:
    found = tuned(Lane(-1, 1), TARGET, (0, 64), (1, 2), lambda: False)
    assert (found.is_met, found.after.in_time) == (False, 0.5)


def test_it_stops_when_its_time_is_over_and_says_so() -> None:
    found = tuned(Lane(600, 1), TARGET, (0, 64), (1, 2, 3), lambda: True)
    assert (found.is_complete, found.run_count, dict(found.after.changes)) == (False, 3, {})


def test_what_is_printed_can_be_written_down(run: Callable[..., Result], few: str) -> None:
    result = run(command, "--arrivals", few, "--message-s", "1.5", "--within", "10m")
    lines = result.output.splitlines()
    assert lines[0].endswith(" runs of arrivals, 3 min 21 s each")
    assert lines[1].startswith("before: $0.0011 (1.00x the bound), 100.0 % within 10 min")
    assert lines[2].startswith("after: $0.0011")
    repeat = shlex.split(lines[-1].removeprefix("repeat: "))
    assert repeat[:4] == ["fanout", "tune", "--arrivals", few]
    body = json.loads(run(command, *repeat[2:], "--json").output)
    assert (body["is_met"], body["after"]["in_time"], int(lines[0].split()[0])) == (True, 1.0, body["run_count"])
    assert [line for line in lines if line.startswith("fanout/")] == [f'{key}: "{value}"' for key, value in body["annotations"].items()]


def test_a_lane_whose_messages_wait_for_others_can_be_tuned(run: Callable[..., Result], few: str) -> None:
    result = run(command, "--arrivals", few, "--message-s", "1.5", "--within", "10m", "--what-if", "min-backlog=50")
    assert (result.exit_code, 'fanout/min-backlog: "50"' in result.output) == (0, True), result.output


def test_a_target_that_nothing_meets_is_not_told_as_a_gain(run: Callable[..., Result], few: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = tuned(Lane(-1, 1), TARGET, (0, 64), (1,), lambda: True)
    monkeypatch.setattr("fanout.simulation.tune.tuned", lambda *_, **__: nothing)
    result = run(command, "--arrivals", few, "--message-s", "1.5", "--within", "1s")
    told = [line for line in result.output.splitlines() if line.startswith("nothing")]
    assert (result.exit_code, told) == (1, ["nothing that was tried meets the target or comes nearer to it: the settings stay"])


def test_a_lane_is_named_as_an_argument(here: World, past: Past, run: Callable[..., Result]) -> None:
    now = here.clock.now()
    past.points["tasks-sub"] = [(now - 600, 20), (now - 540, 0)]
    result = run(command, "default", "--within", "5m", "--message-s", "1", "--since", "1h")
    repeat = shlex.split(result.output.splitlines()[-1])
    assert repeat[1:5] == ["fanout", "tune", "default", "--since"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--within", "10"], "--within '10': a duration above 0"),
        (["--within", "10m", "--in-time", "nan"], "--in-time 'nan': a percentage above 0, at most 100"),
        (["--within", "10m", "--in-time", "0"], "--in-time '0': a percentage above 0, at most 100"),
        (["--within", "10m", "--for", "x"], "--for 'x': a duration above 0"),
        (["--within", "10m", "--what-if", "min-workers=9,max-workers=2"], "must not be above"),
    ],
)
def test_a_target_that_is_none(run: Callable[..., Result], few: str, options: list[str], told: str) -> None:
    result = run(command, "--arrivals", few, "--message-s", "1.5", *options)
    assert (result.exit_code, told in result.output) == (2, True)
