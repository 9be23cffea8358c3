"""The run: submits, ticks all lanes until every task is proven, tells the screen, and kills a worker when asked to.

All tasks are submitted before the first tick, so that each lane is one decision that can be checked by hand.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from batch.client.proof import Proof, prove
from batch.client.submission import Report, Submission
from batch.client.submit import check_by
from batch.handling.registry import load_handlers
from batch.model.errors import FanoutError
from controller.decide.decision import Kind
from controller.lanes.lanes import lanes_of
from controller.model.lane import Lane
from controller.model.reading import Reading
from controller.tick.outside import Outside
from controller.tick.results import TickResult, explained
from controller.tick.rounds import tick_lanes
from fanout.demo.display import Screen
from fanout.demo.result import Result
from fanout.demo.snapshot import LaneSnapshot, Snapshot, look
from fanout.demo.workload import UNKNOWN_TYPE, Workload
from fanout.execution.tries import WorkerTry
from fanout.output import counted
from local_cloud.supervisor.supervisor import LocalCloud
from local_cloud.supervisor.workers import RunningWorker, running_workers

EVERY_S = 1.0
VICTIM_LANE = "default"
MOST_DONE = 0.7
"""A worker that has done more of its share than this is too near its end to be killed in the middle of it."""


class DemoRun:
    """One run of the demo on a local cloud that is ready for it."""

    def __init__(
        self, outside: Outside, cloud: LocalCloud, screen: Screen, rng: random.Random, *, kill_worker: bool, limit_s: float
    ) -> None:
        self._outside = outside
        self._cloud = cloud
        self._screen = screen
        self._rng = rng
        self._kill_worker = kill_worker
        self._limit_s = limit_s
        self._lanes: list[Lane] = []
        self._submissions: dict[str, Report] = {}
        self._proofs: dict[str, Proof] = {}
        self._readings: dict[str, Reading] = {}
        self._last_told: dict[str, str] = {}
        self._ended: set[str] = set()
        self._victims: list[RunningWorker] = []

    @property
    def submission_ids(self) -> list[str]:
        return [report.submission_id for report in self._submissions.values()]

    def submit(self, loads: Sequence[Workload], project: str) -> None:
        """One submission a lane, and all of it accepted. Raises DependencyError, FanoutError for a task that is refused."""
        self._lanes, _ = lanes_of(self._outside.runner.jobs())
        lanes = {lane.name: lane for lane in self._lanes}
        for load in loads:
            report = submitted(load, lanes[load.lane].topic, project, self._outside, self._rng)
            self._submissions[load.lane] = report
            tasks = counted(report.accepted_count, "task")
            self._screen.say(f"submitted {tasks} to lane {load.lane}: submission {report.submission_id}")
            if report.refusals:
                first = report.refusals[0]
                raise FanoutError(f"lane {load.lane}: task {first.position} was refused: {first.reason}")

    def run(self) -> Result:
        """Tick and look until all is proven and at rest, or the time is over. Raises ServiceFailed, DependencyError."""
        since = self._outside.clock.now()
        while True:
            self._cloud.check()
            self._tick()
            snapshot = self._look(since)
            self._maybe_kill(snapshot)
            if snapshot.acked_count >= snapshot.submitted_count or snapshot.at_rest:
                self._prove()
            if self._complete and snapshot.at_rest:
                break
            if snapshot.elapsed_s > self._limit_s:
                self._screen.say(f"the limit of {self._limit_s:g} s is over; what is there by now is counted")
                self._prove()
                break
            self._outside.clock.wait(self._cloud.died, EVERY_S)
        return Result(tuple(self._proofs.values()), snapshot.lanes, self._kill_worker, tuple(self._victims))

    @property
    def _complete(self) -> bool:
        return len(self._proofs) == len(self._submissions) and all(proof.complete for proof in self._proofs.values())

    def _prove(self) -> None:
        """A submission that is proven stays so: outcomes are never taken back."""
        for lane, report in self._submissions.items():
            known = self._proofs.get(lane)
            if known is None or not known.complete:
                self._proofs[lane] = prove(self._outside.store, report.submission_id)

    def _tick(self) -> None:
        for result in tick_lanes(self._outside).results:
            self._readings[result.decision.lane] = result.decision.reading
            self._tell(result)

    def _tell(self, result: TickResult) -> None:
        """A launch is argued in full, anything else when its kind changes."""
        decision = result.decision
        kind = decision.kind.value
        if decision.kind is Kind.LAUNCH or result.notes:
            lines = explained(result)
        elif self._last_told.get(decision.lane) != kind:
            lines = explained(result)[:1]
        else:
            return
        self._last_told[decision.lane] = kind
        for line in lines:
            self._screen.say(line)

    def _look(self, since: float) -> Snapshot:
        submitted = {lane: report.accepted_count for lane, report in self._submissions.items()}
        snapshot = look(self._outside, self._lanes, submitted, self._readings, since)
        self._screen.show(snapshot)
        for lane in snapshot.lanes:
            self._tell_ends(lane)
        return snapshot

    def _tell_ends(self, lane: LaneSnapshot) -> None:
        for worked in lane.executions:
            info = worked.info
            if info.live or info.name in self._ended:
                continue
            self._ended.add(info.name)
            took = f" in {info.completed_at - info.created_at:.1f} s" if info.completed_at is not None else ""
            others = {"retried": info.retried_count, "failed": info.failed_count}
            more = "".join(f", {count} {what}" for what, count in others.items() if count)
            self._screen.say(
                f"execution {info.name} ended{took}: {info.succeeded_count} of {counted(info.task_count, 'worker')} done{more}"
            )

    def _maybe_kill(self, snapshot: Snapshot) -> None:
        if not self._kill_worker or self._victims:
            return
        victim = kill_one(snapshot.tries, self._cloud.state_dir, self._rng)
        if victim is not None:
            self._victims.append(victim)
            who = f"worker {victim.index} of {victim.execution}"
            self._screen.say(f"killed {who} (process {victim.pid}, SIGKILL) in the middle of its share")


def submitted(load: Workload, topic: str, project: str, outside: Outside, rng: random.Random) -> Report:
    """Submit the tasks of one lane, checked by the handlers' own models. Only the type that is wrong on purpose may be unknown."""
    from batch.services.topic import GoogleTopic

    registry = load_handlers(["batch.handlers"])
    check = check_by(registry, unknown_types=any(task.task_type == UNKNOWN_TYPE for task in load.tasks))
    with closing(GoogleTopic(project, topic)) as to:
        submission = Submission(lane=load.lane, topic=to, store=outside.store, clock=outside.clock, rng=rng, check=check)
        submission.add(load.tasks)
        return submission.close()


def candidates(tries: Sequence[WorkerTry]) -> list[WorkerTry]:
    """Workers in the middle of their first try."""
    first = [one for one in tries if one.lane == VICTIM_LANE and one.state == "running" and one.retry == 0]
    return [one for one in first if 0 < one.progress.acked <= MOST_DONE * one.progress.share]


def kill_one(tries: Sequence[WorkerTry], state_dir: Path, rng: random.Random) -> RunningWorker | None:
    """SIGKILL to one candidate that has a process; None when there is none now."""
    wanted = {(one.execution, one.index, one.retry) for one in candidates(tries)}
    found = [one for one in running_workers(state_dir) if (one.execution, one.index, one.retry) in wanted]
    if not found:
        return None
    victim = rng.choice(found)
    try:
        os.kill(victim.pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return victim
