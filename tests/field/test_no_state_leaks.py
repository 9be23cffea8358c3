"""What one task sets (context variables, working folder, locale, a seed, an alarm) the next one does not find."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from batch.handling import answer
from batch.handling.answer import Said, called, tasks_begin_as_now
from batch.logs import own, send_to
from batch.model.exit import ExitReason
from batch.model.outcomes import merged
from batch.process_state import ProcessState
from batch.testing.clock import ManualClock
from batch.worker.attempt import Attempt
from batch.worker.executors.guard import LOOK_EVERY_S, Guard
from tests.batch.worker.plant import SHARD, Plant, ended, in_thread
from tests.field import leaky_handlers
from tests.support import wait_until


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    state = ProcessState()
    yield
    state.put_back(state.changed())


def publish(plant: Plant, kind: str, *names: str) -> None:
    for number, name in enumerate(names):
        body = {"task_id": f"{kind}-{name}-{number}", "task_type": f"leaky-{kind}", "name": name}
        plant.publish(json.dumps(body).encode(), shard=SHARD, task_type=f"leaky-{kind}")


def results(plant: Plant) -> dict[str, Any]:
    return {task_id: one.result for task_id, one in merged(plant.outcomes()).items()}


@pytest.mark.parametrize("kind", ["plain", "async", "group", "isolated"])
def test_a_task_finds_no_context_variable_of_another(kind: str) -> None:
    plant = Plant(registry=leaky_handlers.LEAKY)
    publish(plant, kind, "leak", "look", "look", "leak", "look", "look")
    worker = plant.worker(HANDLERS=leaky_handlers.__name__, CONCURRENCY=1, PROCESSES=1, BACKLOG=6)
    assert worker.run() is ExitReason.SHARE_DONE
    found = results(plant)
    together = {f"{kind}-look-1", f"{kind}-look-4"} if kind == "group" else set()  # the second of a call with one that leaks
    clean = [one for task_id, one in found.items() if task_id not in together]
    assert len(found) == 6
    assert {(one["tenant"], one["precision"]) for one in clean} == {("none", 28)}


@pytest.mark.parametrize("kind", ["plain", "async", "group"])
def test_what_a_handler_leaves_of_the_process_is_put_back_and_named(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    send_to(caplog.handler, "INFO")  # as in a process of its own
    plant = Plant(registry=leaky_handlers.LEAKY)
    before = leaky_handlers.process_wide()
    publish(plant, kind, "leak")
    thread, reasons = in_thread(plant.worker(HANDLERS=leaky_handlers.__name__, MAX_MESSAGES=2, DRAIN_AFTER_S=30))

    def all_said() -> list[Any]:
        return [vars(record) for record in caplog.records if vars(record).get("event") == "process_changed"]

    def named() -> list[Any]:
        """By this worker: one of an earlier test may still end in this process, and put some of it back before this one looks."""
        return [one for one in all_said() if f"leaky-{kind}" in one["task_types"]]

    wait_until(named, 30, "the change to be seen")
    publish(plant, kind, "look")
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]
    assert len(named()) == 1
    changed = ", ".join(one["changed"] for one in all_said())
    streams = ("sys.stdin", "sys.stdout", "sys.stderr")
    settings = ("warning filters", "recursion limit", "garbage collection", "default socket timeout")
    for what in ("working folder", "umask", "locale", *streams, *settings):
        assert what in changed
    assert "logging" in changed
    found = results(plant)[f"{kind}-look-0"]
    assert {name: found[name] for name in before} == before


def test_an_isolated_task_begins_as_the_first_one_did(caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant(registry=leaky_handlers.LEAKY)
    publish(plant, "isolated", *["leak"] * 3, "look")
    worker = plant.worker(HANDLERS=leaky_handlers.__name__, PROCESSES=1, BACKLOG=4)
    assert worker.run() is ExitReason.SHARE_DONE
    found = list(results(plant).values())
    assert len({one.pop("pid") for one in found}) == 1
    assert len({one.pop("random") for one in found}) == 4, "a seed of one task gave the next one its numbers"
    assert all(one == found[0] for one in found)
    assert (found[0]["alarm"], found[0]["environment"], found[0]["tenant"]) == (0.0, None, "none")
    assert not [record for record in caplog.records if vars(record).get("event") == "process_changed"]


def test_a_child_that_is_past_its_time_shows_its_stacks_also_after_a_handler_took_that_signal() -> None:
    plant = Plant(registry=leaky_handlers.LEAKY)
    publish(plant, "isolated", "leak")
    plant.publish(json.dumps({"task_id": "hangs", "task_type": "leaky-isolated-hangs"}).encode(), shard=SHARD)
    worker = plant.worker(HANDLERS=leaky_handlers.__name__, PROCESSES=1, BACKLOG=2)
    assert worker.run() is ExitReason.SHARE_DONE
    record = json.loads(plant.store.read("attempts/hangs.json"))
    assert "in hangs" in record["errors"][0]["traceback"]


# --- the guard by itself


def test_a_change_is_left_alone_while_a_handler_runs_that_ran_when_it_was_first_seen(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plant, clock = Plant(), ManualClock()
    plant.registry.task("t")(lambda _task, _ctx: None)
    inside, other = (attempt(plant, task_id) for task_id in ("inside", "other"))
    guard = Guard(clock, ["t"])
    home = os.getcwd()
    guard.check([inside])
    os.chdir(tmp_path)
    guard.check([inside, other])
    assert os.getcwd() == str(tmp_path), "it may be in a `with` block of the handler that runs"
    guard.check([inside])
    assert os.getcwd() == str(tmp_path)
    guard.check([])
    assert os.getcwd() == home
    (said,) = [vars(record) for record in caplog.records]
    assert (said["changed"], said["task_types"]) == ("working folder", "t")
    os.chdir(tmp_path)
    guard.check([])
    assert os.getcwd() == home
    assert len(caplog.records) == 1, "once is enough"


def attempt(plant: Plant, task_id: str) -> Attempt:
    plant.publish(json.dumps({"task_id": task_id, "task_type": "t"}).encode())
    (delivery,) = plant.subscription.pull(1, 0)
    decoded = plant.worker()._runner.admission.decoded(delivery)
    assert isinstance(decoded, Attempt)
    return decoded


def test_it_looks_now_and_then_in_a_process_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    guard = Guard(clock, [])
    looks: list[int] = []

    def running() -> list[Attempt]:
        looks.append(1)
        return []

    guard.look(running)
    assert not looks
    own.handler = caplog.handler
    for _ in range(100):
        guard.look(running)
        clock.wait(threading.Event(), LOOK_EVERY_S / 10)
    assert 9 <= len(looks) <= 11


def test_a_working_folder_that_is_gone_keeps_nothing_from_being_put_back(tmp_path: Any) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    home = os.getcwd()
    os.chdir(folder)
    state = ProcessState()
    folder.rmdir()
    sys.stdin = None
    state.put_back(state.changed())
    os.chdir(home)
    assert sys.stdin is not None


# --- what a task begins with


def test_a_task_finds_what_a_module_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer._clean, "context", copy_context())
    setting: ContextVar[str] = ContextVar("setting")
    setting.set("by a module")
    tasks_begin_as_now()

    class Whose:
        def facts(self) -> dict[str, Any]:
            return {"task_id": "t"}

    def handler(_whose: Whose) -> str:
        logging.getLogger("x").info("said")
        found = setting.get()
        setting.set("by a task")
        return found

    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.extend(called(handler, Whose()) for _ in range(2)))
    thread.start()
    thread.join()
    assert [(one.said, one.result) for one in answers] == [(Said.RETURNED, "by a module")] * 2


def test_a_handler_that_deletes_a_stream_ends_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    send_to(caplog.handler, "INFO")
    plant = Plant()
    plant.registry.task("write", retries=0)(lambda _task, _ctx: delattr(sys, "stdout"))
    plant.submit(1)
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"task-0": "succeeded"}


def test_a_watchdog_that_one_task_has_set_ends_no_other() -> None:
    plant = Plant(registry=leaky_handlers.LEAKY)
    publish(plant, "watches", "leak", "look")
    assert plant.worker(HANDLERS=leaky_handlers.__name__, PROCESSES=1, BACKLOG=2).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"watches-leak-0": "succeeded", "watches-look-1": "succeeded"}
