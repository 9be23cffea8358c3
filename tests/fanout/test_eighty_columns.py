"""Every list fits a terminal of 80 columns, with a lane's name of twelve letters and real ids, none of which is cut."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest
from click.testing import Result

from batch.dead.log import Act, Entry
from batch.dead.segments import write
from batch.model.clock import iso
from batch.model.names import dead_segment_object, processed_object
from batch.model.progress import RunningTask
from batch.testing.clock import START_S
from controller.model.execution import WorkerInfo
from controller.model.reading import Value
from fanout import cloud, execution, executions, lanes, task, tick
from fanout.dead import command as dead
from fanout.local.status import _text
from fanout.output import WIDTH
from fanout.submission import following
from tests.batch.dead.log_of_letters import letter
from tests.batch.submitted import Submitted
from tests.batch.traces import Bucket
from tests.controller.fakes import World, job, progress, world, write_progress

Run = Callable[..., Result]
LANE = "thumbnails-x"


@pytest.fixture
def here() -> World:
    return world([job(LANE), job("default"), job("urgent")])


@pytest.fixture
def busy(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> World:
    """A launch of 100 workers an hour ago, some of which failed, one by hand, and dead, delayed and old tasks."""
    monkeypatch.setattr(cloud, "connected", lambda _settings: nullcontext(here.outside))
    monkeypatch.setattr(cloud, "open_store", lambda _project, _bucket: nullcontext(here.store))
    here.backlog.by_name = {f"{LANE}-sub": Value(10_000, here.clock.now() - 60, 3000.0)}
    assert "launch: 100 workers" in run(tick.tick, LANE).output
    here.clock.advance(3540)
    by_hand = here.runner.add(20, {"MAX_MESSAGES": "1000"}, job=f"projects/p/locations/r/jobs/{LANE}")
    task_id = f"9f2c4e1ab8d03f57-rolling-{LANE}-2026013112"
    old = RunningTask(task_id, "data_transformation", int(here.clock.now()) - 3000)
    for info in (here.runner.all[f"{LANE}-00000"], by_hand):
        for index in range(10):
            died = {"running": (old,)} if index == 3 else {"exit_reason": "out_of_time"}
            write_progress(here.store, info.name, index, progress(10_000, taken=9_999, acked=9_000, updated_at=here.clock.now(), **died))
    launched = here.runner.all[f"{LANE}-00000"]
    ended = replace(launched, completed_at=here.clock.now(), started_at=launched.created_at, failed_count=60, succeeded_count=40)
    here.runner.all[launched.name] = replace(ended, running_count=0, retried_count=55)
    here.runner.all[by_hand.name] = replace(by_hand, started_at=by_hand.created_at, running_count=12)
    log = f"https://console.cloud.google.com/logs/viewer?project=p&execution={launched.name}"
    here.runner.known_workers[launched.name] = {
        index: WorkerInfo(index, term_signal=9, completed_at=here.clock.now(), log_uri=log) for index in range(10)
    }
    here.backlog.by_name = {f"{LANE}-sub": Value(1_234_567, here.clock.now() - 100, 3000.0)}
    Bucket(here.store, here.clock).delay(task_id, here.clock.now() + 4000, f"{LANE}-sub")
    letters = [letter(number, lane=LANE, task_type="data_transformation", task_id=f"{number:016x}{task_id[16:]}") for number in range(150)]
    write(here.store, dead_segment_object(LANE, START_S, "a", 0), letters)
    return here


def long_lines(result: Result) -> list[str]:
    assert result.stdout
    return [line for line in result.stdout.splitlines() if len(line) > WIDTH]


def test_lanes(busy: World, run: Run) -> None:
    busy.runner.set_annotation(f"projects/p/locations/r/jobs/{LANE}", "fanout/paused", "true")
    result = run(lanes.command)
    row = next(line for line in result.stdout.splitlines() if line.startswith(f"{LANE}  "))
    assert row.split() == [LANE, "paused", "1234567", "51", "min", *row.split()[5:7], "150", "1", "59", "min"]
    table = result.stdout.partition(f"lane {LANE}: ")[0]
    assert max(map(len, table.splitlines())) < WIDTH, "room for `unknown`, the longest state"


def test_executions(busy: World, run: Run) -> None:
    result = run(executions.command, LANE)
    lists, _, _ = result.stdout.partition(f"\n{LANE}-00001: its oldest task: ")
    assert [line for line in lists.splitlines() if len(line) > WIDTH] == []
    assert f"{LANE}-00001: 8 waiting, 12 running" in result.stdout
    assert f"9f2c4e1ab8d03f57-rolling-{LANE}-2026013112 (data_transformation), 50 min" in result.stdout


def test_an_execution(busy: World, run: Run) -> None:
    decision_id = busy.runner.all[f"{LANE}-00000"].decision_id
    result = run(execution.command, f"{LANE}-00000")
    told, launched, *table = result.stdout.splitlines()
    assert (told.startswith(f"{LANE}-00000 of lane {LANE} has ended"), launched) == (True, f"launched by decision {decision_id}")
    assert [line for line in (launched, *table) if len(line) > WIDTH and "oldest task" not in line and "log" not in line] == []
    assert "worker 3, try 0: SIGKILL (often because memory ran out)" in table


def test_dead_letters_and_replays(busy: World, run: Run) -> None:
    listed = run(dead, "ls", "--lane", LANE)
    assert long_lines(listed) == []
    assert f"\n  such as {'0' * 16}-rolling-{LANE}-2026013112\n" in listed.stdout
    opened = Entry(Act.OPENED, iso(busy.clock.now()), "r-20260131-120000-52e6b438", "ann@example.com", "fixed in release 12")
    write(busy.store, dead_segment_object(LANE, START_S, "b", 0), [replace(opened, details={"act": "discard", "claimed_count": 150_000})])
    replays = run(dead, "replays")
    assert long_lines(replays) == []
    assert "\n  by ann@example.com: fixed in release 12\n" in replays.stdout


def test_a_task(busy: World, run: Run) -> None:
    bucket = Bucket(busy.store, busy.clock)
    task_id = bucket.new_id()
    busy.store.write(processed_object(f"{task_id}.csv"), b"abc", metadata={"task_id": task_id})
    bucket.flush([replace(bucket.line(task_id, "succeeded", output=f"processed/{task_id}.csv"), execution=f"{LANE}-x7k2p", index=123)])
    assert [line for line in long_lines(run(task.command, task_id)) if "  log  " not in line] == []


def test_a_submission(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Submitted(150)
    monkeypatch.setattr(cloud, "open_store", lambda _project, _bucket: nullcontext(one.store))
    monkeypatch.setattr(following, "SystemClock", lambda: one.clock)
    one.write(one.outcome(task_id) for task_id in one.ids[:60])
    assert [line for line in long_lines(run(following.status, one.submission_id)) if "not known" not in line] == []


def test_the_local_cloud() -> None:
    service = {"service": "monitoring", "state": "silent", "process": 1234567, "url": "http://127.0.0.1:45678", "grpc": "127.0.0.1:45679"}
    waits = {"project": "demo", "subscription": LANE, "backlog": 10_000, "outstanding": 1_000, "oldest_age_s": 3600.0}
    worker = {"process": 1234567, "execution": f"{LANE}-x7k2p", "index": 123, "retry": 1}
    lines = _text({"services": [service], "subscriptions": [waits], "workers": [worker]}).splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []
