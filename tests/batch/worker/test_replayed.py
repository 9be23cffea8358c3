"""A task that died is published again under a number: it runs anew, its effect is one, and what comes late counts no more."""

from __future__ import annotations

from typing import Any

import pytest

from batch.client.proof import prove
from batch.handling.registry import Registry
from batch.model.attempts import from_json
from batch.model.clock import iso
from batch.model.deadletters import REPLAY, Replay
from batch.model.delayed import DELAYED, Republication
from batch.model.delivery import Outgoing
from batch.model.message import Task, encode
from batch.model.names import manifest_object, outcome_object, submission_object
from batch.model.outcomes import Outcome, to_line
from tests.batch.worker.plant import SHARD, Plant, write

TASK_ID = f"00112233445566aa-{SHARD}"


class Flaky:
    """Fails until it is mended."""

    def __init__(self) -> None:
        self.mended = False
        self.runs: list[tuple[int, int]] = []

    def __call__(self, task: Task, ctx: Any) -> Any:
        self.runs.append((task.replay_number, ctx.attempt))
        if not self.mended:
            raise ValueError("not yet")
        return write(task, ctx)


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


@pytest.fixture
def made(flaky: Flaky) -> Plant:
    registry = Registry()
    registry.task("write", retries=0)(flaky)
    return Plant(registry=registry)


def publish(plant: Plant, number: int = 0, *, marked: bool = True, **changes: Any) -> None:
    task = Task(TASK_ID, "write", "2026-01-01T00:00:00.000000Z", {"name": "out/one", **changes}, "s-1", "lane", SHARD)
    data, attributes = encode(task)
    if number:
        attributes[REPLAY] = str(Replay(number, plant.clock.now(), "r-1"))
        if marked:
            attributes[DELAYED] = str(Republication(0, plant.clock.now(), "1"))
    plant.broker.topic("lane").publish([Outgoing(data, attributes)])


def drain(plant: Plant, execution: str) -> None:
    plant.worker(CLOUD_RUN_EXECUTION=execution).run()


def replayed(plant: Plant, number: int) -> None:
    """What a replay writes before it publishes."""
    line = to_line(Outcome(TASK_ID, "write", "replayed", iso(plant.clock.now()), replay_number=number))
    plant.store.write(outcome_object(SHARD, plant.clock.now(), f"r-{number}", 0), line)


def test_it_runs_anew_and_its_history_is_kept(made: Plant, flaky: Flaky) -> None:
    publish(made)
    drain(made, "a")
    assert made.final() == {TASK_ID: "dead"}
    replayed(made, 1)
    assert made.final() == {TASK_ID: "replayed"}
    publish(made, 1)
    drain(made, "b")
    record = from_json(made.store.read(f"attempts/{TASK_ID}.json"))
    assert (record.replay_number, record.attempt_count, len(record.errors)) == (1, 1, 2)
    flaky.mended = True
    replayed(made, 2)
    publish(made, 2)
    drain(made, "c")
    assert made.final() == {TASK_ID: "succeeded"}
    assert flaky.runs == [(0, 1), (1, 1), (2, 1)]
    assert [one["dead_attempt_count"] for one in made.letters()] == ["1", "1"]


def test_a_late_message_of_a_lower_number_is_acknowledged_unrun(made: Plant, flaky: Flaky) -> None:
    publish(made)
    drain(made, "a")
    publish(made, 1)
    drain(made, "b")
    publish(made, 1)
    publish(made, 2)
    drain(made, "c")
    flaky.runs.clear()
    publish(made, 1)
    drain(made, "d")
    assert flaky.runs == []
    assert made.subscription.backlog == 0
    assert made.final() == {TASK_ID: "dead"}


def test_one_without_a_record_may_run_and_its_output_yields(made: Plant, flaky: Flaky) -> None:
    flaky.mended = True
    replayed(made, 1)
    publish(made, 1, name="out/one", version="edited")
    drain(made, "a")
    later = made.store.info("out/one")
    assert later is not None
    publish(made)  # the first message again, whose acknowledgement was lost
    drain(made, "b")
    assert made.store.info("out/one") == later
    lines = {(one.replay_number, one.outcome) for one in made.outcomes()}
    assert lines == {(1, "replayed"), (1, "succeeded"), (0, "superseded")}
    assert made.final() == {TASK_ID: "succeeded"}


def test_an_output_of_a_lower_number_is_replaced_once(made: Plant, flaky: Flaky) -> None:
    flaky.mended = True
    publish(made)
    drain(made, "a")
    first = made.store.info("out/one")
    publish(made, 1)
    publish(made, 1)
    drain(made, "b")
    second = made.store.info("out/one")
    assert first is not None
    assert second is not None
    assert second.generation > first.generation
    assert second.metadata["replay_number"] == "1"
    written = [one for one in made.outcomes() if one.replay_number == 1]
    assert [one.outcome for one in written] == ["succeeded", "succeeded"]


def test_a_letter_tells_what_a_replay_needs(made: Plant) -> None:
    publish(made)
    drain(made, "a")
    (letter,) = made.letters()
    published_s, message_id = letter["dead_first"].split(" ")
    assert float(published_s) == pytest.approx(made.clock.now(), abs=600)
    assert message_id
    (dead,) = [one for one in made.outcomes() if one.outcome == "dead"]
    assert letter["dead_fingerprint"] == dead.fingerprint != ""


def test_the_proof_counts_the_highest_number(made: Plant, flaky: Flaky) -> None:
    made.store.write(manifest_object("s-1", 0), f'{{"task_id":"{TASK_ID}","task_type":"write","shard":"{SHARD}"}}\n'.encode())
    made.store.write(submission_object("s-1"), b'{"task_count": 1, "part_count": 1, "shards": ["s-1"]}')
    publish(made)
    drain(made, "a")
    dead = prove(made.store, "s-1")
    assert (dead.counts["dead"], dead.complete, dead.dead[0].title) == (
        1,
        True,
        "ValueError: not yet",
    )
    replayed(made, 1)
    pending = prove(made.store, "s-1")
    assert (pending.missing, pending.replayed, pending.counts["dead"], pending.dead) == ((TASK_ID,), {TASK_ID: 1}, 0, ())
    flaky.mended = True
    publish(made, 1)
    drain(made, "b")
    done = prove(made.store, "s-1")
    assert (done.complete, done.counts["succeeded"], done.repeated_line_count, done.dead) == (True, 1, 0, ())
