"""Several controllers tick one lane at the same time, and die between any two steps: work is done once, and none is forgotten."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from batch.testing import MemoryBroker
from controller.act.history import newest
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes
from tests.controller.cloud_sim import FAULTS, Backlog, Clock, Cloud, Runner, Store, StoreCalls
from tests.controller.contender import Served, served
from tests.support import clean_environment

ENOUGH_STEPS = 60


def controller(cloud: Cloud, seed: int) -> Outside:
    """One with a memory and a chance of its own."""
    runner: Any = Runner(cloud)
    return Outside(Store(StoreCalls(cloud)), runner, Backlog(cloud), Clock(cloud), random.Random(seed), MemoryBroker().topic)


def drained(cloud: Cloud, outside: Outside) -> int:
    """Tick alone, without more faults, until nothing is left; returns the steps."""
    cloud.fault_rate = 0.0
    for step in range(ENOUGH_STEPS):
        if cloud.acked == cloud.published and not cloud.late and not any(info.live for info in cloud.all.values()):
            tick_lanes(outside)
            return step
        tick_lanes(outside)
        cloud.step()
    raise AssertionError(f"{cloud.published - cloud.acked} messages are forgotten")


@pytest.mark.parametrize(
    ("seed", "listing_lag_s"), [pytest.param(1, 0.0, marks=pytest.mark.slow), pytest.param(2, 50.0, marks=pytest.mark.slow)]
)
def test_threads_of_two_controllers_launch_each_part_once(seed: int, listing_lag_s: float) -> None:
    cloud = Cloud(seed, fault_rate=0.5, listing_lag_s=listing_lag_s, ticks_a_step=4, arrival_steps=70)
    controllers = [controller(cloud, 1), controller(cloud, 2)]

    def ticks(number: int) -> None:
        for _ in range(40):
            tick_lanes(controllers[number % 2])
            cloud.ticked()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ticks, range(8)))
    drained(cloud, controllers[0])
    cloud.check()
    assert cloud.tick_count == 320
    assert set(cloud.met) >= set(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_ticks_of_two_processes_launch_each_part_once(seed: int) -> None:
    cloud = Cloud(seed, fault_rate=0.5, ticks_a_step=8, arrival_steps=110)
    with served(cloud) as server:
        cloud.publish(500)
        both = [contender(server, "ticks", str(number)) for number in (1, 2)]
        for one in both:
            assert one.wait(120) == 0
    assert cloud.tick_count == 1000
    drained(cloud, controller(cloud, 3))
    cloud.check()
    assert set(cloud.met) >= set(FAULTS)
    assert cloud.fenced_count


def contender(server: Served, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.controller.contender", str(server.port), server.key.hex(), *arguments]
    return subprocess.Popen(command, env=clean_environment())


# --- death between two steps


class Killed(BaseException):
    """In place of SIGKILL: nothing of the product catches it."""


class Mortal:
    """Counts a controller's calls to the outside, and dies before or after one of them."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.count = at, after, 0

    def wrap(self, thing: Any) -> Any:
        mortal = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                found = getattr(thing, name)
                return partial(mortal.call, found) if callable(found) else found

        return Wrapped()

    def call(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        self.count += 1
        if self.count == self.at and not self.after:
            raise Killed
        found = function(*arguments, **more)
        if self.count == self.at:
            raise Killed
        return found


def mortal_controller(cloud: Cloud, mortal: Mortal) -> Outside:
    one = controller(cloud, 9)
    return Outside(mortal.wrap(one.store), mortal.wrap(one.runner), mortal.wrap(one.backlog), one.clock, one.rng, one.topic)


def scene(fault: str) -> Cloud:
    """A backlog that is seen, and a first launch that went as `fault` says, whose outcome the next tick is about to follow up."""
    cloud = Cloud()
    cloud.publish(95)
    cloud.step(90)
    if fault:
        cloud.fault_rate = 1.0
        cloud.only_fault = fault
        tick_lanes(controller(cloud, 1))
        cloud.fault_rate = 0.0
        cloud.publish(40)
        # So late that what is unclear is given up: the claim is one of the steps.
        cloud.step(200)
    return cloud


@pytest.mark.parametrize("fault", ["", "unavailable", "lost_response", "effect_too_late", "refused"])
@pytest.mark.parametrize("after", [False, True])
def test_death_at_any_step_is_mended_by_later_ticks(fault: str, after: bool) -> None:
    steps = 0
    for at in range(1, 60):
        cloud, mortal = scene(fault), Mortal(at, after=after)
        try:
            tick_lanes(mortal_controller(cloud, mortal))
        except Killed:
            steps += 1
        cloud.step()
        drained(cloud, controller(cloud, 2))
        cloud.check()
        if mortal.count < at:
            break
    else:
        raise AssertionError("a tick has more steps than were tried")
    assert steps >= 6


@pytest.mark.slow
@pytest.mark.parametrize("at", ["before run", "after run", "before history", "before done"])
def test_a_killed_process_is_mended_by_later_ticks(at: str) -> None:
    cloud = scene("")
    with served(cloud) as server:
        assert contender(server, "die", at).wait(60) == -signal.SIGKILL
    assert cloud.run_count == (0 if at == "before run" else 1)
    cloud.step()
    drained(cloud, controller(cloud, 2))
    cloud.check()
    launched = {info.decision_id.rpartition(".")[0] for info in cloud.all.values()}
    kept = [one["decision_id"] for one in newest(cloud.store, "default", 1000, 1e10) if one["kind"] == "launch"]
    assert (len(kept), set(kept) >= launched) == (len(set(kept)), True)
