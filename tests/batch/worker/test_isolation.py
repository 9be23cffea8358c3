"""Isolated handlers: whatever one does to its process, the worker lives, the task ends where it should, and others go on."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.handling.answer import Said
from batch.handling.registry import Handler
from batch.model.clock import iso
from batch.model.errors import DependencyForbidden
from batch.model.exit import ExitReason
from batch.model.outcomes import Outcome, merged
from batch.worker.attempt import Attempt
from batch.worker.executors import child_process as children
from batch.worker.executors.child_process import how_it_ended
from batch.worker.executors.processes import Isolation
from tests.batch.worker.isolated import MODULE, plant_with, submit, worker
from tests.batch.worker.plant import Leases, Plant, ended, in_thread
from tests.clocks import JumpingClock
from tests.support import wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no limit of memory is enforced")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No child, and none of the folders for their temporary files."""
    temp = tmp_path_factory.mktemp("temp")
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    yield
    wait_until(lambda: not own_children(), 60, "the end of all children")
    wait_until(lambda: not os.listdir(temp), 60, "the removal of their folders")


def own_children() -> list[int]:
    """Processes that this one has started and not reaped, and that are children of workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"batch.child" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, IndexError):
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def outcome_of(plant: Plant, task_id: str) -> Outcome:
    return merged(plant.outcomes())[task_id]


def record(plant: Plant, task_id: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(plant.store.read(f"attempts/{task_id}.json"))
    return body


def run_beside_good_ones(task_type: str, **fields: Any) -> Plant:
    """One task of this type among good ones that use the same children."""
    plant = plant_with(task_type, "child-write")
    for number in range(4):
        submit(plant, f"before-{number}", "child-write", name=f"out/before-{number}")
    submit(plant, "wild", task_type, **fields)
    for number in range(4):
        submit(plant, f"after-{number}", "child-write", name=f"out/after-{number}")
    assert worker(plant, BACKLOG=9).run() is ExitReason.SHARE_DONE
    others = {task_id: outcome for task_id, outcome in plant.final().items() if task_id != "wild"}
    assert others == dict.fromkeys((f"{when}-{number}" for when in ("before", "after") for number in range(4)), "succeeded")
    assert plant.subscription.backlog == 0
    return plant


DEATHS = {
    "child-segfault": ("SIGSEGV", "about to touch what is not mine"),
    "child-exit-7": ("exit code 7", "last words"),
    "child-kill": ("SIGKILL", ""),
    "child-leaves-a-copy": ("exit code 7", ""),
}


@pytest.mark.parametrize("task_type", DEATHS)
def test_a_handler_that_kills_its_process_harms_nobody(task_type: str) -> None:
    plant = run_beside_good_ones(task_type)
    how, last_words = DEATHS[task_type]
    outcome = outcome_of(plant, "wild")
    assert (outcome.outcome, outcome.error_type) == ("dead", "ProcessDied")
    assert how in outcome.reason
    (error,) = record(plant, "wild")["errors"]
    assert last_words in error["traceback"]
    (letter,) = plant.letters()
    assert how in letter["dead_reason"]


def test_a_segfault_leaves_the_place_where_it_happened() -> None:
    plant = run_beside_good_ones("child-segfault")
    assert "in segfault" in record(plant, "wild")["errors"][0]["traceback"]


@linux
def test_a_handler_that_wants_all_memory_is_told_its_limit() -> None:
    plant = run_beside_good_ones("child-hog")
    outcome = outcome_of(plant, "wild")
    assert (outcome.outcome, outcome.error_type) == ("dead", "MemoryError")
    assert "more than the 128 MB" in outcome.reason


@linux
@pytest.mark.parametrize(("first", "same"), [("child-reserves", True), ("child-keeps", False), ("child-frugal", True)])
def test_memory_counts_as_it_is_used(first: str, same: bool) -> None:
    """350 MB reserved leave room for 60 used of 128; 100 MB that another task has left behind do not: a fresh child runs it then."""
    plant = plant_with(first, "child-frugal")
    submit(plant, "first", first)
    submit(plant, "second", "child-frugal")
    assert worker(plant, BACKLOG=2, PROCESSES=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"first": "succeeded", "second": "succeeded"}
    assert (outcome_of(plant, "first").result == outcome_of(plant, "second").result) is same


def test_a_handler_that_never_ends_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    tell = tmp_path / "pid"
    plant = run_beside_good_ones("child-endless", tell=str(tell))
    outcome = outcome_of(plant, "wild")
    assert (outcome.outcome, outcome.error_type) == ("dead", "TimeoutError")
    assert "limit of 0.5 s" in outcome.reason
    assert "in endless" in record(plant, "wild")["errors"][0]["traceback"]
    wait_until(lambda: not alive(int(tell.read_text())), 60, "the end of what the handler had started")


def test_what_a_handler_prints_never_reaches_the_wire(caplog: pytest.LogCaptureFixture) -> None:
    """Binary, 13 MB at once, something that looks like a frame, and no line end."""
    caplog.set_level(logging.INFO, "fanout")
    plant = run_beside_good_ones("child-noise")
    assert outcome_of(plant, "wild").result == "done"
    printed = [one.getMessage() for one in caplog.records if vars(one).get("event") == "handler_output"]
    assert any("more bytes were printed and left out" in line for line in printed)
    assert max(map(len, printed)) <= 2000


def test_a_handler_that_forks_speaks_once() -> None:
    assert outcome_of(run_beside_good_ones("child-forks"), "wild").result == "the child"


RESULTS = {
    "large": {"left_out": "the result had 50000136 bytes, at most 65536 are kept"},
    "none": None,
}


@pytest.mark.parametrize("what", RESULTS)
def test_results_are_kept_as_those_of_threads(what: str) -> None:
    result = outcome_of(run_beside_good_ones("child-result", what=what), "wild").result
    if what == "large":
        assert str(result["left_out"]).endswith("at most 65536 are kept")
    else:
        assert result == RESULTS[what]


def test_what_handlers_say_is_heard() -> None:
    plant = plant_with("child-say")
    plant.deferred_count = 2
    for what in ("retry", "permanent", "snooze", "dependency", "exit", "stubborn", "wrong"):
        submit(plant, what, "child-say", what=what)
    assert worker(plant, BACKLOG=7, PROCESSES=1).run() is ExitReason.SHARE_DONE
    assert {one.task_id: (one.outcome, one.error_type) for one in plant.outcomes()} == {
        "retry": ("dead", "Retry"),
        "permanent": ("dead", "permanent"),
        "exit": ("dead", "SystemExit"),
        "stubborn": ("dead", "Stubborn"),
        "wrong": ("dead", "ValueError"),
    }
    assert outcome_of(plant, "stubborn").reason.startswith("it cannot travel")
    assert plant.store.names("attempts/snooze") == plant.store.names("attempts/dependency") == ()
    assert plant.subscription.leased == 2


def test_reads_and_writes_are_the_workers() -> None:
    plant = plant_with("child-copy", "child-write", "child-missing")
    large = os.urandom(3_000_000)
    plant.store.write("in/large", large)
    submit(plant, "copy", "child-copy", **{"from": "in/large", "to": "out/large"})
    submit(plant, "missing", "child-missing")
    assert worker(plant, BACKLOG=2).run() is ExitReason.SHARE_DONE
    assert outcome_of(plant, "copy").result == {"size": 3_000_000, "created": True, "there": True, "not_there": False}
    assert outcome_of(plant, "copy").output == "out/large"
    assert outcome_of(plant, "missing").result == "no/such is missing"
    data, info = plant.store.read_with_info("out/large")
    assert data == large
    assert (info.content_type, info.metadata["task_id"]) == ("application/x-copied", "copy")


def test_an_older_task_yields_to_a_newer_one_and_a_bucket_that_is_closed_spends_no_attempt() -> None:
    plant = plant_with("child-write")
    submit(plant, "older", "child-write", name="out/taken")
    newer = {"task_id": "newer", "submitted_at": iso(plant.clock.now() + 1)}
    plant.store.write("out/taken", b"", metadata=newer)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert outcome_of(plant, "older").outcome == "superseded"
    submit(plant, "refused", "child-write", name="out/refused")
    original = plant.store.write

    def closed(name: str, data: bytes, **options: Any) -> Any:
        if name.startswith("out/"):
            raise DependencyForbidden("the bucket is closed")
        return original(name, data, **options)

    plant.store.write = closed  # type: ignore[method-assign]
    assert worker(plant, BACKLOG=1, CLOUD_RUN_EXECUTION="lane-y").run() is ExitReason.BROKEN
    assert "refused" not in plant.final()
    assert plant.store.names("attempts/") == ()


def test_the_payload_is_validated_where_the_handler_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "validated", lambda _, task: pytest.fail(f"the worker validates {task.task_id}"))
    plant = plant_with("child-payload")
    submit(plant, "good", "child-payload", name="Ada", size=3)
    submit(plant, "bad", "child-payload", size="many")
    assert worker(plant, BACKLOG=2).run() is ExitReason.SHARE_DONE
    assert outcome_of(plant, "good").result == {"name": "Ada", "size": 3, "remaining": True}
    bad = outcome_of(plant, "bad")
    assert (bad.outcome, bad.error_type) == ("dead", "invalid")
    assert "name: Field required" in bad.reason
    assert plant.store.names("attempts/") == ()


def test_lines_that_a_handler_logs_or_prints_carry_its_task(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fanout")
    plant = plant_with("child-prints")
    for number in range(4):
        submit(plant, f"t-{number}", "child-prints")
    assert worker(plant, BACKLOG=4).run() is ExitReason.SHARE_DONE
    printed = [one for one in caplog.records if vars(one).get("event") == "handler_output"]
    assert sorted(one.getMessage() for one in printed) == [f"I am t-{number}" for number in range(4)]
    assert all(one.getMessage() == f"I am {vars(one)['task_id']}" for one in printed)
    logged = [one for one in caplog.records if one.name == "fanout.handler"]
    assert sorted(one.getMessage() for one in logged) == [f"logged by t-{number}" for number in range(4)]
    assert all(one.getMessage().endswith(str(vars(one)["task_id"])) and vars(one)["colour"] == "red" for one in logged)
    assert {one.levelno for one in logged} == {logging.WARNING}


def test_a_task_that_crashes_is_tried_again_and_its_deaths_are_attempts() -> None:
    plant = plant_with("child-twice")
    submit(plant, "wild", "child-twice")
    assert worker(plant, MAX_MESSAGES=3).run() is ExitReason.SHARE_DONE
    outcome = outcome_of(plant, "wild")
    assert (outcome.outcome, outcome.attempt_count, outcome.result) == ("succeeded", 3, 3)
    assert [error["error_type"] for error in record(plant, "wild")["errors"]] == ["ProcessDied", "ProcessDied"]


def test_a_handler_that_holds_the_interpreter_is_delivered_once(tmp_path: Path) -> None:
    """For five ack deadlines nothing else in its process runs: the worker, in another one, keeps the lease."""
    clock = JumpingClock()
    plant = plant_with("child-holds", clock=clock, ack_deadline_s=20.0)
    leases = Leases(plant, clock)
    tell = tmp_path / "pid"
    submit(plant, "held", "child-holds", seconds=0.5, tell=str(tell))
    pulls: list[int] = []
    original = plant.subscription.pull

    def counted(max_messages: int, timeout_s: float) -> Any:
        deliveries = original(max_messages, timeout_s)
        pulls.extend(one.delivery_attempt for one in deliveries)
        return deliveries

    plant.subscription.pull = counted  # type: ignore[method-assign]
    thread, reasons = in_thread(worker(plant, MAX_MESSAGES=10))
    pid = wait_until(lambda: tell.exists() and tell.read_text(), 60, "the handler to begin")
    leases.outlive(5)
    ended(thread)
    assert reasons == [ExitReason.DRAINED]
    assert int(pid) != os.getpid()
    assert pulls == [1]
    assert plant.final() == {"held": "succeeded"}


def test_a_child_hears_that_its_worker_stops(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fanout")
    plant = plant_with("child-until-stopped")
    submit(plant, "waits", "child-until-stopped")
    running = worker(plant, MAX_MESSAGES=10)
    thread, reasons = in_thread(running)
    wait_until(lambda: any(one.getMessage() == "waiting" for one in caplog.records), 60, "the handler to wait")
    running.stop()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    assert outcome_of(plant, "waits").result == "told"


@pytest.mark.usefixtures("begun_late")
@pytest.mark.slow
def test_what_still_runs_at_the_end_goes_back_and_its_process_ends(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    plant = plant_with("child-sleeps")
    tell = tmp_path / "pid"
    submit(plant, "sleeps", "child-sleeps", tell=str(tell))
    assert worker(plant, BACKLOG=1, TASK_TIMEOUT_S=2, PREFETCH_S="0.2").run() is ExitReason.OUT_OF_TIME
    assert plant.subscription.backlog == 1
    assert plant.subscription.leased == 0
    wait_until(lambda: not alive(int(tell.read_text())), 60, "the end of the child")
    wait_until(lambda: set(threading.enumerate()) <= before, 60, "the end of the slots")
    assert plant.store.names("attempts/") == (), "its end was not the handler's fault"


@pytest.mark.parametrize(
    ("source", "told", "share", "most_starts"),
    [("import no_such_thing_at_all", "no_such_thing_at_all", 100, 1), ("import os; os._exit(4)", "exit code 4", 5, 5)],
)
def test_handlers_that_the_child_cannot_import_are_a_clear_end(
    source: str, told: str, share: int, most_starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What no other child would do better ends the worker at once; what another might, when it has happened to all."""
    (tmp_path / "unimportable_there.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    starts: list[int] = []
    original = children.Child.get_ready

    def counted(self: children.Child) -> None:
        starts.append(self.pid)
        original(self)

    monkeypatch.setattr(children.Child, "get_ready", counted)
    caplog.set_level(logging.INFO, "fanout")
    plant = plant_with("child-write")
    for number in range(5):
        submit(plant, f"t-{number}", "child-write", name=f"out/{number}")
    reason = worker(plant, MAX_MESSAGES=share, HANDLERS="unimportable_there", PROCESSES=1).run()
    assert reason is ExitReason.BROKEN
    assert len(starts) <= most_starts
    assert plant.final() == {}
    assert plant.store.names("attempts/") == ()
    errors = [str(vars(one)["error"]) for one in caplog.records if vars(one).get("event") == "child_failed"]
    assert errors
    assert told in errors[0]


def test_what_cannot_be_imported_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[int] = []
    original = children.Child.get_ready

    def counted(self: children.Child) -> None:
        starts.append(self.pid)
        original(self)

    monkeypatch.setattr(children.Child, "get_ready", counted)
    plant = plant_with("child-write")
    submit(plant, "t", "child-write", name="out/t")
    settings = worker(plant, HANDLERS="no_such_module_at_all").settings
    told: list[str] = []
    isolation = Isolation(settings, plant.store, plant.clock, threading.Event(), plant.clock.monotonic() + 60, told.append)
    (delivery,) = plant.subscription.pull(1, 0)
    attempt = worker(plant)._runner.begun(delivery)
    assert isinstance(attempt, Attempt)
    answers = [isolation.call(attempt) for _ in range(3)]
    assert [answer.said for answer in answers] == [Said.DEPENDENCY] * 3
    assert len(starts) == 1
    assert all("no_such_module_at_all" in reason for reason in (*told, *(answer.reason for answer in answers)))


def test_no_child_is_started_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children.Child, "get_ready", lambda _: pytest.fail("no isolated task came"))
    plant = plant_with("child-write", "thread-write")
    submit(plant, "t", "thread-write")
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE


def test_a_child_loads_neither_grpc_nor_google() -> None:
    plant = plant_with("child-modules")
    plant.store.write("in/modules", b"data")
    submit(plant, "t", "child-modules")
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert outcome_of(plant, "t").result == []
    assert plant.store.read("out/modules") == b"data"


@pytest.mark.parametrize("module", ["batch", "batch.child", "batch.child.inside", "batch.handlers"])
def test_what_a_child_imports_loads_neither_grpc_nor_google(module: str) -> None:
    script = f"import sys, {module}; print([m for m in sys.modules if m.split('.')[0] in ('grpc', 'google')])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.strip() == "[]"


KILLED = """
import threading, sys
from tests.batch.worker.isolated import plant_with, submit, worker
plant = plant_with("child-sleeps")
submit(plant, "t", "child-sleeps", tell=sys.argv[1])
worker(plant, BACKLOG=1).run()
"""


@pytest.mark.parametrize("held", [False, True])
def test_no_child_outlives_its_worker(tmp_path: Path, held: bool) -> None:
    """Not even one that holds the interpreter and so cannot hear of it."""
    tell = tmp_path / "pid"
    task_type = "child-holds-and-tells" if held else "child-sleeps"
    process = subprocess.Popen([sys.executable, "-c", KILLED.replace("child-sleeps", task_type), str(tell)])
    pid = int(wait_until(lambda: tell.exists() and tell.read_text(), 60, "the handler to run"))
    assert alive(pid)
    assert os.getpgid(pid) == os.getsid(pid) == pid, "a signal to the worker's group is the worker's to judge"
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(pid), 60, "the end of the child")


def test_a_child_that_died_idle_costs_no_task() -> None:
    plant = plant_with("child-write")
    submit(plant, "one", "child-write", name="out/one")
    may_go = threading.Event()
    original = plant.subscription.pull

    def pull(max_messages: int, timeout_s: float) -> Any:
        if "one" in plant.final() and not may_go.is_set():
            for pid in own_children():
                os.kill(pid, signal.SIGKILL)
            submit(plant, "two", "child-write", name="out/two")
            may_go.set()
        return original(max_messages, timeout_s)

    plant.subscription.pull = pull  # type: ignore[method-assign]
    assert worker(plant, MAX_MESSAGES=2, PROCESSES=1).run() is ExitReason.SHARE_DONE
    assert may_go.is_set()
    assert plant.final() == {"one": "succeeded", "two": "succeeded"}
    assert plant.store.names("attempts/") == ()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (7, "ended with exit code 7"),
        (-9, "was ended by SIGKILL (often because memory ran out)"),
        (-11, "was ended by SIGSEGV (it touched memory that is not its own)"),
        (-15, "was ended by SIGTERM"),
        (-250, "was ended by signal 250"),
        (None, "was killed and did not go"),
    ],
)
def test_how_a_process_ended_is_told_in_words(code: int | None, words: str) -> None:
    assert how_it_ended(code) == words


assert MODULE == "tests.batch.child.handlers"
