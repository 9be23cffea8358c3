"""Poked lanes are ticked at once, and no more often than makes sense."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from batch.model.errors import DependencyUnavailable
from controller.act.state import load, save
from controller.model.reading import Unknown, Value
from controller.service.poked_lanes import MOST_WAITING, PokedLanes
from controller.service.pokes import Poke
from controller.service.service import create_app
from controller.service.ticker import Ticker
from controller.tick.action import act
from tests.controller.fakes import World, job, world
from tests.controller.http_client import Client
from tests.support import wait_until

LIMIT_S = 60.0
numbers = itertools.count()


@pytest.fixture
def here() -> World:
    """The lanes of one topic each; the gauge knows of nothing."""
    return world([job(), job("bulk", topic="bulk")])


def poke(here: World, count: int = 250, topic: str = "tasks", poke_id: str = "") -> Poke:
    return Poke(poke_id or f"poke-{next(numbers):06d}", "", topic, count, here.clock.now())


Timers = list[tuple[float, Callable[[], None]]]


def poked(here: World, deadline_s: float = LIMIT_S, timers: Timers | None = None) -> PokedLanes:
    """Timers are set, and nothing calls them but the test."""
    timers = [] if timers is None else timers
    ticker = Ticker(here.outside, deadline_s=deadline_s)
    return PokedLanes(here.outside, ticker, later=lambda seconds, call: timers.append((seconds, call)))


def test_an_idle_lane_starts_before_the_gauge_knows(here: World) -> None:
    answer = poked(here).take([poke(here)])["lanes"]["default"]
    assert (answer["status"], answer["accepted_count"]) == ("done", 250)
    ((_, request),) = here.runner.requests
    assert (request.task_count, request.env["BACKLOG"]) == (3, "250")
    assert here.backlog.calls == [["tasks-sub"]], "only the lane that was poked is read"


def test_the_same_poke_again_launches_nothing_and_ticks_nothing(here: World) -> None:
    one = poke(here)
    lanes = poked(here)
    lanes.take([one, one])
    here.clock.advance(10)
    assert lanes.take([one])["lanes"]["default"]["status"] == "nothing_new"
    assert poked(here).take([one])["lanes"]["default"]["repeated_count"] == 1, "another controller knows it too"
    assert (len(here.runner.requests), len(here.backlog.calls)) == (1, 1)


def test_what_was_poked_is_not_launched_again_when_the_gauge_catches_up(here: World) -> None:
    client = Client(create_app(here.outside))
    poked(here).take([poke(here)])
    here.clock.advance(60)
    client.post("/tick")
    here.clock.advance(60)
    here.backlog.by_name = {"tasks-sub": Value(250, here.clock.now() - 30)}
    client.post("/tick")
    assert len(here.runner.requests) == 1


def test_a_poke_that_is_lost_costs_only_time(here: World) -> None:
    client = Client(create_app(here.outside))
    client.post("/tick")
    assert here.runner.requests == []
    here.clock.advance(150)
    here.backlog.by_name = {"tasks-sub": Value(250, here.clock.now() - 120)}
    client.post("/tick")
    assert [request.env["BACKLOG"] for _, request in here.runner.requests] == ["250"]


@pytest.mark.parametrize("reading", ["unknown", "paused"])
def test_a_poke_overrules_nothing(reading: str) -> None:
    here = world([job(paused="true" if reading == "paused" else "false")])
    here.backlog.reading = Unknown("no answer")
    answer = poked(here).take([poke(here)])["lanes"]["default"]
    assert (answer["lanes"][0]["decision"]["kind"], here.runner.requests) == ("hold", [])


def test_the_lane_s_caps_hold_whatever_a_poke_says() -> None:
    here = world([job(max_workers="7")])
    lanes = poked(here)
    for _ in range(5):
        lanes.take([poke(here, 1_000_000)])
        here.clock.advance(3)
    assert sum(request.task_count for _, request in here.runner.requests) == 7


def test_a_poke_for_no_lane_is_told_and_the_others_are_served(here: World) -> None:
    answer = poked(here).take([poke(here, topic="nobody"), poke(here), poke(here, 0, "bulk")])
    assert (answer["unknown"], list(answer["lanes"])) == (["nobody"], ["default"])


def test_a_lane_that_is_new_is_found(here: World) -> None:
    lanes = poked(here)
    lanes.take([poke(here)])
    here.runner._jobs.append(job("new", topic="new"))
    here.clock.advance(3)
    assert lanes.take([poke(here, topic="new")])["lanes"]["new"]["status"] == "done"


class Gate:
    """The backlog reader waits at it; `reads` counts who came."""

    def __init__(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._passes, self._read, self.came = threading.Semaphore(0), here.backlog.read, 0
        monkeypatch.setattr(here.backlog, "read", self.read)

    def read(self, subscriptions: list[str]) -> Any:
        self.came += 1
        assert self._passes.acquire(timeout=LIMIT_S)
        return self._read(subscriptions)

    def open(self, count: int = 100) -> None:
        self._passes.release(count)


def test_of_a_lane_one_tick_runs_and_one_waits_and_takes_all_that_came(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(here, monkeypatch)
    lanes = poked(here)
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(lanes.take([poke(here, 100)])["lanes"]["default"])) for _ in range(2)]
    threads[0].start()
    wait_until(lambda: gate.came == 1, LIMIT_S, "the first tick runs")
    threads[1].start()
    wait_until(lambda: lanes._queues["default"].asked, LIMIT_S, "the second one waits")
    joined = [lanes.take([poke(here, 100)])["lanes"]["default"]["status"] for _ in range(20)]
    gate.open()
    for thread in threads:
        thread.join(LIMIT_S)
    assert joined == ["joined"] * 20
    assert gate.came == 2
    assert sorted(answer["accepted_count"] for answer in answers) == [100, 2100]
    assert sum(int(request.env["BACKLOG"]) for _, request in here.runner.requests) == 2200


def test_ticks_that_pokes_ask_for_keep_a_distance(here: World) -> None:
    """The clock moves where somebody waits: ten pokes of a lane take nine distances."""
    lanes = poked(here)
    begin = here.clock.monotonic()
    for _ in range(10):
        lanes.take([poke(here, 1)])
    assert here.clock.monotonic() - begin == pytest.approx(18.0)


@pytest.mark.parametrize(("drain_within", "most"), [("10m", 5), ("2m", 6), ("20s", 13)])
def test_a_steady_stream_does_not_buy_a_worker_every_two_seconds(drain_within: str, most: int) -> None:
    """Ten tasks a second for a minute: a worker is billed for a minute, so later ones wait for the tick that comes anyway."""
    here = world([job(drain_within=drain_within)])
    lanes = poked(here)
    for _ in range(30):
        lanes.take([poke(here, 20)])
        here.clock.advance(2)
    assert 1 <= len(here.runner.requests) <= most
    Client(create_app(here.outside)).post("/tick")
    assert sum(int(request.env["BACKLOG"]) for _, request in here.runner.requests) == 600, "and none of them is forgotten"


def test_a_burst_after_a_single_task_does_not_wait(here: World) -> None:
    lanes = poked(here)
    lanes.take([poke(here, 1)])
    here.clock.advance(3)
    assert lanes.take([poke(here, 3)])["lanes"]["default"]["status"] == "counted"
    here.clock.advance(3)
    lanes.take([poke(here, 5000)])
    assert [request.env["BACKLOG"] for _, request in here.runner.requests] == ["1", "5003"]


def urgent() -> World:
    """A launch is followed by a pause of 30 s."""
    return world([job(drain_within="2m")])


def test_what_came_shortly_after_a_launch_is_ticked_when_the_pause_is_over() -> None:
    here, timers = urgent(), Timers()
    lanes = poked(here, timers=timers)
    lanes.take([poke(here, 100)])
    here.clock.advance(10)
    answer = lanes.take([poke(here, 50)])["lanes"]["default"]
    assert (answer["status"], len(here.runner.requests)) == ("counted", 1)
    assert "the next tick, at most 20 s from now, decides" in answer["reason"]
    here.clock.advance(5)
    lanes.take([poke(here, 7)])
    ((seconds, call),) = timers
    assert seconds == pytest.approx(20, abs=0.01), "one timer a lane"
    here.clock.advance(15)
    call()
    assert [request.env["BACKLOG"] for _, request in here.runner.requests] == ["100", "57"]


def test_a_timer_does_nothing_once_another_tick_has_launched_for_what_came() -> None:
    here, timers = urgent(), Timers()
    lanes = poked(here, timers=timers)
    lanes.take([poke(here, 100)])
    here.clock.advance(10)
    lanes.take([poke(here, 50)])
    here.clock.advance(10)
    Client(create_app(here.outside)).post("/tick")
    reads = len(here.backlog.calls)
    here.clock.advance(10)
    timers.pop()[1]()
    assert (len(here.runner.requests), len(here.backlog.calls), timers) == (2, reads, [])


def test_what_came_after_that_launch_too_has_a_timer_again() -> None:
    here, timers = urgent(), Timers()
    lanes = poked(here, timers=timers)
    lanes.take([poke(here, 100)])
    here.clock.advance(10)
    lanes.take([poke(here, 50)])
    here.clock.advance(10)
    Client(create_app(here.outside)).post("/tick")
    here.clock.advance(5)
    lanes.take([poke(here, 20)])
    here.clock.advance(5)
    timers.pop()[1]()
    ((seconds, call),) = timers
    assert (round(seconds), len(here.runner.requests)) == (20, 2)
    here.clock.advance(20)
    call()
    assert [request.env["BACKLOG"] for _, request in here.runner.requests] == ["100", "50", "20"]


def test_where_a_scheduled_tick_comes_as_soon_there_is_no_timer(here: World) -> None:
    timers = Timers()
    lanes = poked(here, timers=timers)
    lanes.take([poke(here, 100)])
    here.clock.advance(10)
    assert lanes.take([poke(here, 50)])["lanes"]["default"]["status"] == "counted"
    assert timers == []


def test_no_timer_outlives_the_service() -> None:
    here, timers = urgent(), Timers()
    lanes = poked(here, timers=timers)
    lanes.take([poke(here, 100)])
    here.clock.advance(10)
    lanes.take([poke(here, 50)])
    lanes.stop()
    here.clock.advance(20)
    timers.pop()[1]()
    assert len(here.runner.requests) == 1


def test_a_timer_of_the_service_waits_in_a_thread_of_its_own() -> None:
    """The clock moves where somebody waits."""
    here = urgent()
    lanes = PokedLanes(here.outside, Ticker(here.outside, deadline_s=LIMIT_S))
    lanes.take([poke(here, 100)])
    here.clock.advance(10)
    lanes.take([poke(here, 50)])
    wait_until(lambda: len(here.runner.requests) == 2, LIMIT_S, "the timer ticks the lane")


def test_a_lane_that_lets_messages_wait_does_so_for_pokes_too() -> None:
    here = world([job(min_backlog="50", max_wait="5m")])
    lanes = poked(here)
    decision = lanes.take([poke(here, 7)])["lanes"]["default"]["lanes"][0]["decision"]
    assert (decision["kind"], decision["waits_until"] is not None, here.runner.requests) == ("nothing_to_do", True, [])


def test_a_slow_lane_holds_up_no_other(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(here, monkeypatch)
    lanes = poked(here, deadline_s=0.05)
    assert lanes.take([poke(here)])["lanes"]["default"]["status"] == "running"
    monkeypatch.setattr(here.backlog, "read", gate._read)
    assert lanes.take([poke(here, topic="bulk")])["lanes"]["bulk"]["status"] == "done"
    gate.open()
    wait_until(lambda: len(here.runner.requests) == 2, LIMIT_S, "the slow one ends by itself")


def test_where_another_tick_was_faster_the_lane_is_ticked_again(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have decided without the poke."""
    faster = iter([True, True])

    def beaten(*arguments: Any, **options: Any) -> Any:
        if next(faster, False):
            found = load(here.store, "default")
            save(here.store, found.state, found.generation, "another controller")
        return act(*arguments, **options)

    monkeypatch.setattr("controller.tick.rounds.act", beaten)
    poked(here).take([poke(here)])
    assert [request.env["BACKLOG"] for _, request in here.runner.requests] == ["250"]


def test_when_the_bucket_is_away_the_poke_is_dropped_with_a_reason(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_arguments: object, **_options: object) -> object:
        raise DependencyUnavailable("no answer from the bucket")

    monkeypatch.setattr(here.store, "read_with_info", away)
    answer = poked(here).take([poke(here)])["lanes"]["default"]
    assert answer == {"status": "not_kept", "reason": "no answer from the bucket"}


def test_over_http(here: World) -> None:
    client = Client(create_app(here.outside))
    one = {"id": "poke-http", "topic": "tasks", "accepted_count": 250, "at": here.clock.now()}
    answer = client.post("/pokes", json={"pokes": [one]})
    assert (answer.status_code, answer.json()["lanes"]["default"]["lanes"][0]["launched"]) == (200, ["default-00000"])
    wrong = client.post("/pokes", json={"pokes": [{**one, "accepted_count": -5}]})
    assert (wrong.status_code, "accepted_count" in wrong.json()["error"]) == (400, True)
    assert client.post("/pokes", content=b"x" * 1_000_000).status_code == 400


def test_too_many_waiting_pokes_are_dropped_and_the_log_names_the_lane(here: World, caplog: pytest.LogCaptureFixture) -> None:
    lanes = poked(here)
    lanes.take([poke(here, 1) for _ in range(MOST_WAITING + 3)])
    dropped = caplog.records[0]
    assert vars(dropped)["lane"] == "default"
    assert dropped.getMessage().startswith("lane default: 3 pokes were dropped")
