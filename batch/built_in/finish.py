"""`fanout.finish`: proves by name that a submission has ended, and then fires its end, once for each round.

What it has come to is written into the mark before the end's task is published, so that of several at once one goes on, and the one that
goes on after an interruption publishes the very same task. The mark is deleted last.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from batch.client.proof import Proof
from batch.client.stored_proof import proof_of
from batch.client.submit import NewTask, submit_one
from batch.dead.lanes import read_lanes
from batch.ends import marks, rounds
from batch.ends.marks import Firing, Mark, fields_of_end
from batch.ends.options import LANE, WEBHOOK, Ends
from batch.formats.kinds import ENVELOPE
from batch.model.clock import Clock
from batch.model.errors import MessageRefused, ObjectMissing, Permanent, PreconditionFailed, Retry, Snooze
from batch.model.message import WEBHOOK_TYPE, Task
from batch.services.ports import ObjectStore, Topic

FIRING_S = 60.0
"""Who began to fire an end has published its task by then, or was interrupted, and somebody else goes on."""
Found = Mapping[str, Any]
"""The result of a `fanout.finish`, as its outcome shows it."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Makes every call itself: a worker that serves any lane can run it."""

    store: ObjectStore
    topics: Callable[[str], Topic]
    clock: Clock
    rng: random.Random

    def run(self, task: Task) -> Found:
        """Raises Snooze while somebody else fires it, Permanent, Retry, DependencyError."""
        try:
            submission_id, lane, number = str(task.fields["submission_id"]), str(task.fields["lane"]), int(task.fields["round"])
        except (KeyError, ValueError, TypeError) as error:
            raise Permanent(
                f"a {task.task_type} names submission_id, lane and round; only the controller publishes one: {error!r}"
            ) from error
        found = marks.read(self.store, lane, submission_id)
        if found is None or found[0].round != number:
            return {"fired": None, "because": f"round {number} has ended, or a replay has begun another"}
        mark, ends = found
        if mark.firing is None:
            proof = self._proven(mark)
            if isinstance(proof, dict):
                self._note_missing(mark, ends, int(proof["missing_count"]))
                return proof
            end = ends.come_to(proof.counts["dead"], proof.submitted_count)
            mark = replace(mark, firing=Firing(self.clock.now(), end, proof.submitted_count, proof.counts))
            mark = self._claimed(mark, ends)
        elif (left_s := mark.firing.at + FIRING_S - self.clock.now()) > 0:
            raise Snooze(left_s, "another fanout.finish is firing this end; this one looks whether it has")
        # A replay that goes on announces tasks, then looks at the mark: it has seen this firing, or what it announced is seen here.
        if proof_of(self.store, mark.submission_id).proof.missing:
            with suppress(PreconditionFailed):
                marks.write(self.store, mark.next_round(mark.action_id), ends)
            return {"fired": None, "because": f"a replay went on when round {number} was about to be fired: the next round is"}
        return self._fired(mark, ends, task.lane)

    def _proven(self, mark: Mark) -> Proof | dict[str, Any]:
        """What is missing, if it is not complete."""
        try:
            proof = proof_of(self.store, mark.submission_id).proof
        except ObjectMissing:
            return {"fired": None, "because": "the submission has no manifest and is not closed", "missing_count": 1}
        if proof.complete:
            return proof
        problems = list(proof.problems[:3]) if proof.closed else ["the submission is not closed"]
        return {"fired": None, "because": "it is not complete", "missing_count": len(proof.missing), "problems": problems}

    def _note_missing(self, mark: Mark, ends: Ends, missing_count: int) -> None:
        """The next one is sent when so many more have ended, not with each that ends."""
        try:
            marks.write(self.store, replace(mark, told=replace(mark.told, missing_count=max(1, missing_count))), ends)
        except PreconditionFailed:
            return  # a replay has begun another round: it is not this one's any more

    def _claimed(self, mark: Mark, ends: Ends) -> Mark:
        try:
            return marks.write(self.store, mark, ends)
        except PreconditionFailed:  # also when the answer to our own write was lost
            raise Snooze(FIRING_S, "another fanout.finish fires this end, or a replay has begun another round") from None

    def _fired(self, mark: Mark, ends: Ends, own_lane: str) -> Found:
        """Publish the end's task, if there is one for the end that it has come to; then the mark goes."""
        firing = mark.firing
        assert firing is not None, "it is written down before anything is published"
        wanted = ends.task(firing.end)
        task_id = self._published(mark, firing, wanted, own_lane) if wanted is not None else None
        rounds.end(self.store, mark)
        return {"fired": firing.end.value, "round": mark.round, "task_id": task_id}

    def _published(self, mark: Mark, firing: Firing, wanted: Mapping[str, Any], own_lane: str) -> str:
        lane, new = _end_task(mark, firing, wanted, own_lane)
        lanes = read_lanes(self.store)
        if lane not in lanes:
            raise Retry(f"there is no lane {lane!r} for the {firing.end} of submission {mark.submission_id}; lanes are {', '.join(lanes)}")
        if WEBHOOK not in wanted and ENVELOPE not in lanes[lane].accept:
            accept = ", ".join(lanes[lane].accept)
            raise Retry(f"lane {lane!r} takes {accept}, and not the task that is the {firing.end} of submission {mark.submission_id}")
        topic = self.topics(lanes[lane].topic)
        try:
            return submit_one(topic, new, lane=lane, clock=self.clock, rng=self.rng, store=self.store, built_in=WEBHOOK in wanted)[0]
        except MessageRefused as error:
            raise Permanent(f"the {firing.end} of submission {mark.submission_id} cannot be published: {error}") from error


def _end_task(mark: Mark, firing: Firing, wanted: Mapping[str, Any], own_lane: str) -> tuple[str, NewTask]:
    """The lane that the end's task goes to, and the task, which is the same each time it is made."""
    key = f"fanout.end/{mark.submission_id}/{mark.round}/{firing.end.value}"
    lane = wanted.get(LANE) or (own_lane if WEBHOOK in wanted else mark.lane)
    return lane, NewTask(wanted.get("task_type", WEBHOOK_TYPE), fields_of_end(mark, firing, wanted), key)
