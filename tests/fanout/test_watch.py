"""`--watch`: round after round with the same clients, until Ctrl-C; a round that fails does not end it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import pytest
from click.testing import Result

from batch.model.clock import SystemClock
from batch.model.errors import DependencyUnavailable, SettingsError
from controller.config import ControllerSettings
from controller.tick.outside import Outside
from fanout import cloud, executions, lanes, tick
from fanout.watch import watched
from tests.controller.fakes import World

Run = Callable[..., Result]


class Waits(SystemClock):
    """A clock whose waits are over at once; during the last one somebody presses Ctrl-C."""

    def __init__(self, rounds: int, between: Callable[[], None] = lambda: None) -> None:
        self.left, self.between = rounds, between
        self.waited: list[float] = []

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.waited.append(timeout_s)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        self.between()
        return False


def watch(look: Callable[[], str], clock: Waits) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        watched(look, click.echo, 7.0, clock)
    return ended.value.code


def test_each_round_is_shown_and_one_that_fails_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    rounds: Iterator[str | Exception] = iter(["one", DependencyUnavailable("503"), ZeroDivisionError("odd"), "four"])

    def look() -> str:
        found = next(rounds)
        if isinstance(found, Exception):
            raise found
        return found

    clock = Waits(4)
    assert watch(look, clock) == 0
    assert clock.waited == [7.0] * 4
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if "Z, every" not in line] == ["one", "", "four", ""]
    first, second = (line.split(": ", 1)[1] for line in shown.err.splitlines())
    assert first == "503; the next look is in 7 s"
    assert second.startswith("a fault in Fanout itself (ZeroDivisionError: odd): FANOUT_TRACEBACK=1 shows")


def test_ctrl_c_during_a_look_ends_it_as_well() -> None:
    def look() -> str:
        raise KeyboardInterrupt

    assert watch(look, Waits(1)) == 0


def test_wrong_usage_is_no_round_that_fails() -> None:
    def look() -> str:
        raise SettingsError(["there is no lane 'defalt'"])

    with pytest.raises(SettingsError):
        watched(look, click.echo, 7.0, Waits(1))


def test_a_terminal_is_cleared_before_a_round_is_drawn_and_a_failure_leaves_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    rounds = iter(["one", "two", None])

    def look() -> str:
        found = next(rounds)
        if found is None:
            raise DependencyUnavailable("503")
        return found

    watch(look, Waits(3))
    _, one, two = terminal.getvalue().split("\033[2J")
    assert ("one" in one, "two" in one, "two" in two, "503" in two) == (True, False, True, True)


@pytest.mark.parametrize(("command", "name"), [(lanes.command, "lanes"), (executions.command, "executions")])
def test_a_command_opens_its_clients_once(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch, command: click.Command, name: str
) -> None:
    opened = []
    here.backlog_is(10)
    clock = Waits(3, between=lambda: here.backlog_is(20))

    @contextmanager
    def connected(settings: ControllerSettings) -> Iterator[Outside]:
        opened.append(settings)
        with monkeypatch.context() as patched:
            patched.setattr(here.clock, "wait", clock.wait)
            yield here.outside

    monkeypatch.setattr(cloud, "connected", connected)
    result = run(command, "default", "--watch", "--every", "2")
    assert (result.exit_code, len(opened), clock.waited) == (0, 1, [2.0] * 3)
    blocks = result.output.strip().split("\n\n")
    assert len(blocks) == 3
    assert all("every 2 s, Ctrl-C ends it" in block for block in blocks)
    clock.left = 2
    first, second = run(command, "--watch", "--json").stdout.strip().split("\n}\n")
    assert list(json.loads(f"{first}\n}}"))[:1] == list(json.loads(second))[:1] == [name]


def test_the_second_look_tells_the_same_as_the_first(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller remembers quiet lanes, to save requests; who watches is told what a single look tells."""
    info = here.runner.add(1, {"BACKLOG": "5"})
    here.runner.fail(info.name, here.clock.now())
    here.backlog_is(0)
    run(tick.tick, "default")  # so that the lane's state knows the execution, and nothing is new
    monkeypatch.setattr(here.clock, "wait", Waits(2).wait)
    first, second = (block.splitlines()[1:] for block in run(lanes.command, "default", "--watch").output.strip().split("\n\n"))
    assert first == second
    assert " broken " in first[1]
