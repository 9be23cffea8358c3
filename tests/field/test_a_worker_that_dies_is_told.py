"""A worker that is ended by a signal, or crashes: its signal and last words, what it had done, and a lane that does not look fine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from batch.model.delivery import Outgoing
from batch.model.message import Task, encode
from batch.model.names import outcome_object, writer_of
from batch.model.progress import RunningTask
from batch.services.topic import GoogleTopic
from batch.testing import MemoryObjectStore
from controller.decide.decision import from_json
from controller.decide.explanation import explained_decision
from controller.lanes.manifests import read_manifests
from controller.lanes.resources import Creator, needed
from controller.model.execution import ExecutionInfo, WorkerInfo
from controller.observe.deployed import DeployedJobs
from controller.observe.google_jobs import GoogleJobRunner
from controller.observe.jobs import RunRequest
from controller.observe.killed import killed_tries, with_outcomes
from fanout import execution, executions, lanes
from fanout.execution.last_words import said_last
from fanout.execution.tries import WorkerTry, console_link, tries_of
from fanout.explain import explanations
from tests.controller.fakes import history, progress, tick, world, write_progress
from tests.controller.fakes import lane as lane_of_tests
from tests.support import wait_until

GOOD = 60
MANIFEST = """
apiVersion: run.googleapis.com/v1
kind: Job
metadata:
  name: default
  labels: {fanout-lane: default}
  annotations: {fanout/subscription: tasks, fanout/topic: tasks, fanout/max-messages: "100", fanout/max-workers: "20"}
spec:
  template:
    spec:
      template:
        spec:
          maxRetries: %(retries)d
          timeoutSeconds: 900
          containers:
            - image: any
              command: [python, -m, batch]
              env:
                - {name: SUBSCRIPTION_NAME, value: tasks}
                - {name: TOPIC_NAME, value: tasks}
                - {name: BUCKET_NAME, value: %(BUCKET_NAME)s}
                - {name: GOOGLE_CLOUD_PROJECT, value: %(GOOGLE_CLOUD_PROJECT)s}
                - {name: PUBSUB_EMULATOR_HOST, value: "%(PUBSUB_EMULATOR_HOST)s"}
                - {name: STORAGE_EMULATOR_HOST, value: "%(STORAGE_EMULATOR_HOST)s"}
                - {name: HANDLERS, value: tests.field.deadly}
                - {name: CONCURRENCY, value: "2"}
                - {name: FLUSH_INTERVAL_S, value: "0.1"}
                - {name: PROGRESS_INTERVAL_S, value: "600"}
                - {name: DRAIN_AFTER_S, value: "0.2"}
                - {name: BILLING_FLOOR_S, value: "0"}
"""


@dataclass
class Lane:
    """A lane on the local cloud, and its job's runner."""

    cloud: dict[str, str]
    runner: GoogleJobRunner
    retries: int

    def __post_init__(self) -> None:
        (manifest,) = read_manifests(MANIFEST % {**self.cloud, "retries": self.retries})
        project, region = self.cloud["GOOGLE_CLOUD_PROJECT"], self.cloud["REGION"]
        with closing(DeployedJobs(project, region, emulator_url=self.cloud["CLOUD_RUN_EMULATOR_HOST"])) as jobs:
            jobs.apply(manifest.name, manifest.document, exists=False)
        with closing(Creator(project, region)) as creator:
            list(creator.create_missing(needed(manifest)))

    def run(self, by: str) -> ExecutionInfo:
        """GOOD tasks and one that ends the worker, drained by one worker; returns once the execution has ended."""
        tasks = [Task(f"good-{number}", "fine", "2026-01-01T00:00:00Z", {}, "s-1", "default", "s-1") for number in range(GOOD)]
        tasks.append(Task("the-deadly-one", "deadly", "2026-01-01T00:00:00Z", {"after": GOOD, "by": by}, "s-1", "default", "s-1"))
        with closing(GoogleTopic(self.cloud["GOOGLE_CLOUD_PROJECT"], "tasks")) as topic:
            topic.publish([Outgoing(*encode(one)) for one in tasks])
        (job,) = self.runner.jobs()
        begun = self.runner.run(job.full_name, RunRequest(1, {"MAX_MESSAGES": "100"}))

        def ended() -> ExecutionInfo | None:
            info = self.runner.execution(begun.full_name)
            return None if info is None or info.live else info

        found = wait_until(ended, 120, "the end of the execution")
        assert found is not None
        return found


@pytest.fixture
def lane(cloud: dict[str, str]) -> Iterator[Callable[[int], Lane]]:
    with closing(GoogleJobRunner(cloud["GOOGLE_CLOUD_PROJECT"], cloud["REGION"], emulator_url=cloud["CLOUD_RUN_EMULATOR_HOST"])) as runner:
        yield lambda retries: Lane(cloud, runner, retries)


def said(command: click.Command, *arguments: str) -> Any:
    result = CliRunner().invoke(command, [*arguments, "--json"])
    assert result.stdout, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(("by", "words"), [("SIGSEGV", "Fatal Python error: Segmentation fault"), ("SIGKILL", "signal 9")])
def test_a_signal_its_last_words_and_what_was_done_are_told(lane: Callable[[int], Lane], by: str, words: str) -> None:
    info = lane(0).run(by)
    body = said(execution.command, info.name)
    (one,) = body["workers"]
    assert (one["worker"], one["try"], one["state"], one["signal"]) == (0, 0, "killed", by)
    assert one["acked_count"] == GOOD, "what its outcomes say, not its last progress"
    assert any(words in line for line in one["last_words"]), one["last_words"]
    if by == "SIGSEGV":
        assert any("deadly.py" in line for line in one["last_words"]), "where it happened"
    assert one["log"].endswith(f"/executions/{info.name}/logs/0?retry=0")
    shown = CliRunner().invoke(execution.command, [info.name])
    assert shown.exit_code == 0, shown.output
    head, launched, header, row, *rest = shown.output.splitlines()
    assert "1 failed; 1 try ended without an exit reason" in head
    assert launched == "launched by hand"
    assert header.split() == ["WORKER", "TRY", "STATE", "SHARE", "TAKEN", "DONE", "TOOK", "OLDEST", "ENDED"]
    assert row.split()[:3] == ["0", "0", "killed"]
    assert row.split()[-1] == by
    assert rest[-1] == f"log: {one['log']}"
    assert any(words in line for line in rest)
    (listed,) = said(executions.command)["executions"]
    assert (listed["acked_count"], listed["killed_count"]) == (GOOD, 1)
    assert "worker 0 (try 0) ended without an exit reason" in listed["problems"][0]
    assert f"fanout execution {info.name}" in listed["problems"][0]
    (status,) = said(lanes.command)["lanes"]
    assert any("ended without an exit reason" in line for line in status["troubles"])
    assert " crashed " in CliRunner().invoke(lanes.command, []).output


@pytest.mark.slow
def test_the_first_try_of_a_worker_that_went_on_is_told_too(lane: Callable[[int], Lane]) -> None:
    info = lane(1).run("SIGSEGV")
    first, second = said(execution.command, info.name)["workers"]
    assert (first["try"], first["state"], first["acked_count"]) == (0, "killed", GOOD)
    assert (first["signal"], first["message"]) == (None, ""), "Cloud Run keeps the last try's only"
    assert "Fatal Python error: Segmentation fault" in first["last_words"][0]
    assert second["try"] == 1
    assert second["state"] in ("drained", "killed")


def test_an_execution_nobody_knows_is_said_so(lane: Callable[[int], Lane]) -> None:
    lane(0)
    result = CliRunner().invoke(execution.command, ["default-nowhere"])
    assert result.exit_code == 2
    assert "no lane has an execution 'default-nowhere': `fanout executions` lists" in result.output


# --- counts


def info(count: int = 1, **changes: Any) -> ExecutionInfo:
    return ExecutionInfo("projects/p/locations/r/jobs/lane/executions/lane-x", count, 0.0, **{"completed_at": 100.0, **changes})


def test_outcomes_of_others_do_not_count() -> None:
    store = MemoryObjectStore()
    for name, lines in {
        outcome_object("s-1", 0.0, writer_of("lane-x", 1, 0), 0): 3,
        outcome_object("s-1", 0.0, writer_of("lane-x", 1, 0), 1): 4,
        outcome_object("s-1", 0.0, writer_of("lane-x", 1, 1), 0): 50,
        outcome_object("s-1", 0.0, writer_of("lane-x", 11, 0), 0): 50,
        outcome_object("s-1", 0.0, writer_of("lane-x-1", 0, 0), 0): 50,
        outcome_object("s-2", 0.0, writer_of("lane-x", 1, 0), 0): 50,
    }.items():
        store.write(name, b"{}\n" * lines, metadata={"succeeded": str(lines - 1), "dead": "1"})
    tries = {(1, 0): progress(100, taken=5, acked=2, shards=("s-1",)), (1, 1): progress(100, exit_reason="drained")}
    (found, other) = with_outcomes(store, info(2), tries, killed_tries(tries, live=False)).values()
    assert (found.acked, found.taken, found.succeeded, found.dead) == (7, 7, 5, 2)
    assert other == tries[1, 1]


def test_many_killed_workers_cost_a_listing_a_shard() -> None:
    store = MemoryObjectStore()
    count = 5
    for index in range(count):
        store.write(outcome_object("s-1", 0.0, writer_of("lane-x", index, 0), 0), b"", metadata={"succeeded": "9"})
    tries = {(index, 0): progress(100, shards=("s-1",)) for index in range(count)}
    listed: list[str] = []
    original = store.list
    store.list = lambda prefix, start="": listed.append(prefix) or original(prefix, start)  # type: ignore[method-assign, func-returns-value]
    found = with_outcomes(store, info(count), tries, killed_tries(tries, live=False))
    assert [one.acked for one in found.values()] == [9] * count
    assert len([one for one in listed if "s-1" in one]) == 1


@pytest.mark.parametrize("shards", [(), ("s-9",)])
def test_single_tasks_of_the_hour_are_found_also_when_progress_does_not_name_them(shards: tuple[str, ...]) -> None:
    store = MemoryObjectStore()
    store.write(outcome_object("rolling-lane-2026010100", 0.0, writer_of("lane-x", 0, 0), 0), b"{}\n", metadata={"dead": "1"})
    tries = {(0, 0): progress(100, started_at=1_767_225_700.0, shards=shards)}
    found = with_outcomes(store, info(completed_at=1_767_225_800.0), tries, [(0, 0)])
    assert (found[0, 0].acked, found[0, 0].dead) == (1, 1)


def test_what_lives_is_not_killed() -> None:
    tries = {(0, 0): progress(), (0, 1): progress(), (1, 0): progress(), (2, 0): progress(exit_reason="drained"), (3, 0): progress()}
    assert killed_tries(tries, live=True) == [(0, 0)]
    assert killed_tries(tries, live=True, ended={3}) == [(0, 0), (3, 0)]
    assert killed_tries(tries, live=False) == [(0, 0), (0, 1), (1, 0), (3, 0)]


# --- rows


def states(info: ExecutionInfo, tries: Any, *workers: WorkerInfo) -> list[tuple[int, int, str, str]]:
    found = tries_of("lane", info, tries, {one.index: one for one in workers})
    return [(one.index, one.retry, one.state, one.ended) for one in found]


def test_each_state_of_a_try() -> None:
    live = info(6, completed_at=None)
    tries = {(1, 0): progress(exit_reason="share_done"), (2, 0): progress(), (3, 1): progress(), (4, 0): progress(exit_reason="broken")}
    assert states(
        live,
        tries,
        WorkerInfo(0),
        WorkerInfo(1, completed_at=50.0, started_at=1.0, exit_code=0),
        WorkerInfo(2, started_at=1.0),
        WorkerInfo(3, started_at=1.0, retried_count=1, exit_code=None, term_signal=11),
        WorkerInfo(4, started_at=1.0, completed_at=50.0, exit_code=3),
        WorkerInfo(5, started_at=1.0, completed_at=50.0, exit_code=2),
    ) == [
        (0, 0, "waiting", ""),
        (1, 0, "share_done", ""),
        (2, 0, "running", ""),
        (3, 0, "killed", "SIGSEGV (it touched memory that is not its own)"),
        (3, 1, "running", ""),
        (4, 0, "broken", "exit code 3 (broken)"),
        (5, 0, "failed", "exit code 2 (wrong settings)"),
    ]


@pytest.mark.parametrize(
    ("worker", "ended"),
    [
        (WorkerInfo(0, completed_at=5.0, term_signal=9), "SIGKILL (often because memory ran out)"),
        (WorkerInfo(0, completed_at=5.0, exit_code=137), "SIGKILL (often because memory ran out)"),
        (WorkerInfo(0, completed_at=5.0, exit_code=1), "exit code 1 (a fault)"),
        (WorkerInfo(0, completed_at=5.0, exit_code=77), "exit code 77"),
    ],
)
def test_how_a_process_ended(worker: WorkerInfo, ended: str) -> None:
    assert [one[3] for one in states(info(), {(0, 0): progress()}, worker)] == [ended]


def test_the_oldest_task_is_named() -> None:
    tasks = (RunningTask("b", "t", 90), RunningTask("a", "t", 30))
    one = WorkerTry("lane", "lane-x", 0, 0, "running", replace(progress(), running=tasks))
    assert execution.row(one, 95.0)[-2] == "1 min"
    assert execution.remarks(one, 95.0)[0] == "its oldest task: a (t), 1 min 5 s"


def test_links_lead_to_the_log_of_the_try() -> None:
    console = console_link(info().full_name)
    assert console == "https://console.cloud.google.com/run/jobs/executions/details/r/lane-x/logs?project=p"
    workers = {0: WorkerInfo(0, log_uri="https://console/logs/0"), 1: WorkerInfo(1)}
    assert [one.log_uri for one in tries_of("lane", info(2), {}, workers, console=console)] == ["https://console/logs/0", console]


def test_of_a_crash_the_thread_that_it_happened_to_is_shown() -> None:
    text = """{"message": "worker started"}
printed by a handler
Fatal Python error: Segmentation fault

Thread 0x01 (most recent call first):
  File "elsewhere.py", line 1 in wait

Current thread 0x02 (most recent call first):
  File "deadly.py", line 7 in deadly
  File "threads.py", line 9 in run

Thread 0x03 (most recent call first):
  File "elsewhere.py", line 2 in wait
"""
    assert said_last(text) == [
        "Fatal Python error: Segmentation fault",
        "Current thread 0x02 (most recent call first):",
        '  File "deadly.py", line 7 in deadly',
        '  File "threads.py", line 9 in run',
    ]
    assert said_last('{"a": 1}\nTraceback\n  oh\n') == ["Traceback", "  oh"]
    assert said_last('{"a": 1}\n') == []


# --- what the controller says of it afterwards


def launched_and(kill: bool) -> tuple[Any, str]:
    """A world whose one launch has ended: its worker was killed, or has done its share. Its execution's name."""
    here = world()
    here.backlog_is(100)
    (name,) = tick(lane_of_tests(), here.outside).launched
    done = {"updated_at": here.clock.now() + 50, "taken": 100, "acked": 100, "last_acked_at": here.clock.now() + 45}
    write_progress(here.store, name, 0, progress(100, here.clock.now() + 5, exit_reason="" if kill else "share_done", **done))
    here.clock.advance(60)
    if kill:
        here.runner.fail(name, here.clock.now())
    else:
        here.runner.complete(name, here.clock.now())
    here.clock.advance(60)
    here.backlog_is(0)
    tick(lane_of_tests(), here.outside)
    return here, name


@pytest.mark.parametrize("kill", [False, True])
def test_explain_says_drained_only_of_what_was(kill: bool) -> None:
    here, _ = launched_and(kill)
    (explained,) = explanations(here.outside, ["default"], "")
    launch = next(one for one in history(here.store) if one["kind"] == "launch")
    assert explained.lines
    told = "\n".join(explained_decision(from_json(launch)))
    assert ("happened: drained in" in told) is not kill
    assert ("happened: 1 worker failed, 1 worker killed or crashed" in told) is kill


def test_a_lane_is_crashed_until_a_newer_execution_ends_well() -> None:
    here, name = launched_and(True)
    here.backlog_is(5)
    ((view,), _) = lanes.looked(here.outside, ["default"])
    assert lanes.state_of(view) == "crashed"
    (trouble,) = lanes.troubles(view)
    assert trouble.startswith(f"{name}: worker 0 (try 0) ended without an exit reason")
    newer = here.runner.add(1, {"DECISION_ID": "d.0", "BACKLOG": "5"})
    ((view,), _) = lanes.looked(here.outside, ["default"])
    assert lanes.state_of(view) == "crashed", "it has shown nothing yet"
    write_progress(here.store, newer.name, 0, progress(5, here.clock.now(), acked=5, taken=5, exit_reason="share_done"))
    here.clock.advance(10)
    here.runner.complete(newer.name, here.clock.now())
    ((view,), _) = lanes.looked(here.outside, ["default"])
    assert (lanes.state_of(view), lanes.troubles(view)) == ("ok", [])
