"""The result: whether the demo did what it claims, every failure by name. Pure.

Nothing is taken from a worker's word alone: outcomes are counted from their objects, shares from what Cloud Run was told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batch.client.proof import Proof
from batch.model.shares import share, share_left
from controller.decide.sizing import worker_cost
from controller.model.execution import Worked
from fanout.demo.snapshot import LaneSnapshot
from local_cloud.supervisor.workers import RunningWorker

NAMED = 10
"""How many missing tasks are named."""


@dataclass(frozen=True, slots=True)
class Result:
    """What is known at the end. `victims` are the workers that were killed; `kill_wanted` whether one was to be."""

    proofs: tuple[Proof, ...]
    lanes: tuple[LaneSnapshot, ...]
    kill_wanted: bool = False
    victims: tuple[RunningWorker, ...] = ()
    expected_dead_count: int = 1

    @property
    def total(self) -> dict[str, int]:
        """submitted, each outcome, missing: over all submissions."""
        names = list(self.proofs[0].counts) if self.proofs else []
        sums = {name: sum(proof.counts[name] for proof in self.proofs) for name in names}
        submitted = sum(proof.submitted_count for proof in self.proofs)
        return {"submitted": submitted, **sums, "missing": sum(len(proof.missing) for proof in self.proofs)}


def problems(result: Result) -> list[str]:
    """What does not hold; empty when everything does."""
    found = [problem for proof in result.proofs for problem in _proof_problems(proof)]
    total = result.total
    sums = sum(count for name, count in total.items() if name not in ("submitted", "missing"))
    if sums + total["missing"] != total["submitted"]:
        found.append(f"{total['submitted']} tasks were submitted, but {sums} outcomes and {total['missing']} missing ones were counted")
    if total.get("dead") != result.expected_dead_count and not total["missing"]:
        found.append(f"{total.get('dead')} tasks are dead where {result.expected_dead_count} was meant to be: see their reasons")
    found += [problem for lane in result.lanes for worked in lane.executions for problem in _share_problems(worked)]
    return found + list(_kill_problems(result))


def _proof_problems(proof: Proof) -> Iterator[str]:
    yield from (f"submission {proof.submission_id}: {problem}" for problem in proof.problems)
    if not proof.closed:
        yield f"submission {proof.submission_id} is not closed"
    yield from (f"submission {proof.submission_id}: task {task_id} has no outcome" for task_id in proof.missing[:NAMED])
    if len(proof.missing) > NAMED:
        yield f"submission {proof.submission_id}: {len(proof.missing) - NAMED} more tasks have no outcome"


def assigned(worked: Worked) -> int:
    """The messages that an execution was launched for: its BACKLOG."""
    return int(worked.info.env.get("BACKLOG", "0"))


def _share_problems(worked: Worked) -> Iterator[str]:
    """Shares of an execution sum to what was assigned; no try takes more than its share, or than SHARE_LIMIT where its workers may go on
    while their minute is paid for; a retry's share is what was left."""
    limit = worked.info.count_setting("SHARE_LIMIT") or 0 if worked.info.count_setting("BILLING_FLOOR_S") else 0
    name, count = worked.info.name, worked.info.task_count
    first_shares = 0
    for index in range(count):
        tries = worked.tries.get(index, ())
        if not tries:
            yield f"worker {index} of {name} has written no progress"
            continue
        first_shares += tries[0].share
        left = share(assigned(worked), count, index)
        for retry, one in enumerate(tries):
            if one.share != left:
                yield f"worker {index} of {name}, try {retry}: its share is {one.share}, must be {left}"
            if one.taken > max(one.share, limit):
                yield f"worker {index} of {name}, try {retry}: it took {one.taken} messages, its share is {one.share}"
            left = share_left(left, one.acked)
    if first_shares != assigned(worked):
        yield f"{name}: the shares of its workers sum to {first_shares}, it was launched for {assigned(worked)}"


def _kill_problems(result: Result) -> Iterator[str]:
    if result.kill_wanted and not result.victims:
        yield "no worker could be killed in the middle of its share: all were done too soon; give more --files"
    tries = {(one.execution, one.index, one.retry): one for lane in result.lanes for one in lane.tries}
    for victim in result.victims:
        killed = tries.get((victim.execution, victim.index, victim.retry))
        retry = tries.get((victim.execution, victim.index, victim.retry + 1))
        where = f"worker {victim.index} of {victim.execution}"
        if killed is None or killed.state != "killed":
            yield f"{where} was killed and yet says {killed.state if killed else 'nothing'}"
        if retry is None:
            yield f"{where} was killed, and no retry of it has written progress"


def cost(lane: LaneSnapshot) -> float:
    """Dollars at list price for all tries of the lane's workers, each billed for a minute at least."""
    return sum(worker_cost(lane.lane).usd(one.seconds) for one in lane.tries)
