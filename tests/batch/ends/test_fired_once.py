"""The end of a submission: never early, once a round, and always in the end, whoever is killed at whichever request."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.built_in.finish import Finish
from batch.client.proof import prove
from batch.dead.action import IN_FLIGHT
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import Rules
from batch.ends import marks, rounds
from batch.ends.marks import Firing
from batch.ends.options import NO_ENDS, End, Ends, Tolerance
from batch.model.errors import Permanent, Retry, Snooze
from batch.model.message import FINISH_TYPE, Task, decode
from batch.model.names import mark_object, stored_proof_object, submission_object
from tests.batch.ends.world import ENDS, ID, LANE, World

KILLS = st.tuples(st.one_of(st.none(), st.integers(0, 30)), st.booleans())
STEPS = st.one_of(
    st.tuples(st.just("work"), st.sampled_from(["succeeded", "dead"]), st.booleans(), KILLS),
    st.tuples(st.just("repeat"), st.integers(0, 9)),
    st.tuples(st.just("tick"), KILLS),
    st.tuples(st.just("tick of another process"), KILLS),
    st.tuples(st.just("replay"), st.integers(0, 7), KILLS),
    st.tuples(st.just("resume"), KILLS),
    st.tuples(st.just("wait"), st.sampled_from([1, 61, 301, 660, 3700])),
    st.tuples(st.just("close")),
)


def act(world: World, step: tuple[Any, ...]) -> None:
    match step:
        case ("work", str(outcome), bool(ack), (kill_at, bool(before))):
            world.mortally(lambda: world.work(outcome, ack=ack), kill_at, before=before)
        case ("repeat", int(seed)):
            world.repeat(random.Random(seed))
        case (("tick" | "tick of another process") as who, (kill_at, bool(before))):
            if who != "tick":
                world.known = {}
            world.mortally(world.tick, kill_at, before=before)
        case ("replay", int(chosen), (kill_at, bool(before))):
            world.mortally(lambda: world.replay(lambda one: bool(chosen >> int(one.task_id[:16], 16) & 1)), kill_at, before=before)
        case ("resume", (kill_at, bool(before))):
            world.mortally(world.resume, kill_at, before=before)
        case ("wait", int(seconds)):
            world.clock.advance(seconds)
        case _:
            world.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25), st.sampled_from([ID, "rolling-default-2026010100"]))
def test_never_early_once_a_round_and_always(steps: list[tuple[Any, ...]], shard: str) -> None:
    world = World(shard=shard)
    for step in steps:
        act(world, step)
    world.close()
    world.settle()
    assert world.early == []
    rounds = world.ids_by_round()
    assert all(len(ids) == 1 for ids in rounds.values()), rounds
    assert rounds, "no end was fired"
    counts = prove(world.bucket, ID).counts
    assert (world.told["counts"], world.told["round"]) == (counts, max(rounds)), "what came of a replay was not told"
    assert world.told["end"] == ("on_failure" if counts["dead"] else "on_complete")


def ready(world: World, outcome: str = "succeeded") -> World:
    """Closed, and every task has ended."""
    for _ in world.ids:
        world.work(outcome)
    return world.close()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kill_at", range(8))
def test_a_tick_killed_at_each_request_sends_again(kill_at: int, before: bool) -> None:
    world = ready(World())
    world.mortally(world.tick, kill_at, before=before)
    world.settle()
    assert world.ids_by_round() == {0: {("on_complete", world.fired[0][2])}}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kill_at", range(24))
def test_a_finish_killed_at_each_request_goes_on(kill_at: int, before: bool) -> None:
    """Its message comes again, and goes on where it was, by what the mark says: also where it would count otherwise now."""
    world = ready(World(ends=Ends({"task_type": "report"}, {"task_type": "alarm"}, Tolerance(count=1))), "dead")
    world.tick()
    world.mortally(world.work, kill_at, before=before)
    world.line(world.ids[0], "succeeded")
    world.settle()
    assert len(world.ids_by_round()[0]) == 1
    assert world.early == []


def test_fifty_finishers_at_once_publish_one_id() -> None:
    world = ready(World(count=20))
    world.tick()
    (message,) = [one for _, one in world.broker.topic("tasks").published if one.attributes["task_type"] == FINISH_TYPE]
    task = decode(message.data, message.attributes, message_id="m", published_s=world.clock.now(), lane="default")
    barrier = threading.Barrier(50)

    def finish() -> str:
        barrier.wait(30)
        try:
            return str(Finish(world.bucket, world.broker.topic, world.clock, random.Random()).run(task)["fired"])
        except Snooze:
            return "snoozed"

    with ThreadPoolExecutor(50) as pool:
        answers = Counter(one.result() for one in [pool.submit(finish) for _ in range(50)])
    assert answers["on_complete"] == 1
    assert world.task_counts()["report"] == 1
    assert world.mark is None


def test_an_empty_submission_ends_at_once_and_an_open_one_after_it_was_closed() -> None:
    empty, left_open = World(count=0).close(), World()
    empty.tick()
    assert empty.work() == FINISH_TYPE
    assert empty.work() == "report"
    while left_open.work():
        pass
    assert (left_open.tick().looked_count, left_open.task_counts()[FINISH_TYPE]) == (1, 0)
    left_open.close().tick()
    assert left_open.task_counts()[FINISH_TYPE] == 1


def test_after_a_failure_a_retry_completes_once_in_its_own_round() -> None:
    world = ready(World(), "dead")
    world.settle()
    assert world.ids_by_round().keys() == {0}
    world.replay()
    assert (world.mark is not None, world.tick().sent) == (True, {})
    world.settle()
    assert [(number, end) for number, end, _ in world.fired] == [(0, "on_failure"), (1, "on_complete")]
    assert world.told["counts"] == {"succeeded": 3, "superseded": 0, "cancelled": 0, "dead": 0}
    assert json.loads(world.bucket.read("submissions/s-1/ended.json")) == {"round": 1, "end": "on_complete"}


def test_a_replay_does_not_ask_for_each_segment_whether_a_submission_has_an_end() -> None:
    world = ready(World(count=10, ends=NO_ENDS), "dead")
    world.bucket.delete(mark_object("default", ID))
    reads = []
    original = world.bucket.read
    world.bucket.read = lambda name: reads.append(name) or original(name)  # type: ignore[func-returns-value,method-assign]
    world.replay()
    assert 1 <= reads.count(submission_object(ID)) <= IN_FLIGHT
    assert world.mark is None


def test_an_end_that_nobody_named_is_not_fired_and_the_mark_goes() -> None:
    world = ready(World(ends=Ends(on_failure={"task_type": "alarm"})))
    world.settle()
    assert (world.fired, world.mark) == ([], None)


def test_a_finish_that_finds_tasks_missing_is_sent_again_when_so_many_more_have_ended() -> None:
    """A redelivery repeats lines: counts reach the end long before the tasks do."""
    world = World(count=6).close()
    world.work()
    for _ in range(5):
        world.line(next(iter(set(world.ids) - world.pending)), "succeeded")
    sent = 0
    for _ in range(6):
        world.tick()
        deliveries = world.subscription.pull(100, 0.0)
        finishes = [one for one in deliveries if one.attributes["task_type"] == FINISH_TYPE]
        world.subscription.nack([one.ack_id for one in deliveries if one not in finishes])
        for one in finishes:
            sent += 1
            task = decode(one.data, one.attributes, message_id="m", published_s=0.0, lane="default")
            Finish(world.bucket, world.broker.topic, world.clock, world.rng).run(task)
            world.subscription.ack([one.ack_id])
        world.work()
    assert sent == 2
    assert world.mark is None or world.mark.told.missing_count == 5


def test_the_task_of_an_end_goes_to_its_own_lane_with_its_own_fields() -> None:
    world = ready(World(ends=Ends({"task_type": "report", "to": "ops", "lane": "bulk"})))
    write_lanes(world.bucket, {"default": LANE, "bulk": LaneFacts("bulk", "bulk-sub", "bulk-topic", Rules())})
    world.tick()
    world.work()
    ((_, message),) = world.broker.topic("bulk-topic").published
    told = {"submission_id": ID, "lane": "default", "round": 0, "end": "on_complete", "task_count": 3, "dead": 0}
    counts = {"succeeded": 3, "superseded": 0, "cancelled": 0, "dead": 0}
    body = json.loads(message.data)
    assert (body["to"], body["submission"], "lane" in body) == ("ops", {**told, "counts": counts}, False)
    assert message.attributes["lane"] == "bulk"


def test_a_lane_that_does_not_exist_is_told_and_the_end_is_fired_once_it_does() -> None:
    world = ready(World(ends=Ends({"task_type": "report", "lane": "bulk"})))
    world.tick()
    (delivery,) = world.subscription.pull(1, 0.0)
    task = decode(delivery.data, delivery.attributes, message_id="m", published_s=0.0, lane="default")
    with pytest.raises(Retry, match=r"there is no lane 'bulk' .*lanes are default"):
        Finish(world.bucket, world.broker.topic, world.clock, world.rng).run(task)
    write_lanes(world.bucket, {"default": LANE, "bulk": LaneFacts("bulk", "bulk-sub", "bulk-topic", Rules())})
    world.clock.advance(61)
    Finish(world.bucket, world.broker.topic, world.clock, world.rng).run(task)
    assert len(world.broker.topic("bulk-topic").published) == 1


def test_a_lane_that_would_take_the_task_of_an_end_for_anybodys_bytes_does_not_get_it() -> None:
    world = ready(World(ends=Ends({"task_type": "report", "lane": "bulk"})))
    write_lanes(world.bucket, {"default": LANE, "bulk": LaneFacts("bulk", "bulk-sub", "bulk-topic", Rules(), accept=("raw",))})
    world.tick()
    (delivery,) = world.subscription.pull(1, 0.0)
    task = decode(delivery.data, delivery.attributes, message_id="m", published_s=0.0, lane="default")
    with pytest.raises(Retry, match="lane 'bulk' takes raw, and not the task that is the on_complete of submission"):
        Finish(world.bucket, world.broker.topic, world.clock, world.rng).run(task)
    assert world.broker.topic("bulk-topic").published == []


@pytest.mark.parametrize("fields", [{}, {"submission_id": ID, "lane": "default", "round": "x"}])
def test_a_finish_that_names_no_round_is_dead(fields: dict[str, object]) -> None:
    world = World()
    with pytest.raises(Permanent, match="names submission_id, lane and round"):
        Finish(world.bucket, world.broker.topic, world.clock, world.rng).run(Task("t", FINISH_TYPE, "now", fields))


def test_a_replay_in_parts_while_its_round_is_proven_is_not_ended_early() -> None:
    """All of its first part has ended when the proof reads, and its next part is announced before the firing stands."""
    world = ready(World(count=2), "dead")
    world.settle()
    write = world.bucket.write

    def goes_on(name: str, *arguments: Any, **options: Any) -> Any:
        if "firing" in (options.get("metadata") or {}) and world.pending == set():
            world.line(world.ids[1], "replayed", 1)
            assert rounds.begin(world.bucket, ID, "a-1")
            world.pending.add(world.ids[1])
        return write(name, *arguments, **options)

    world.line(world.ids[0], "replayed", 1)
    rounds.begin(world.bucket, ID, "a-1")
    world.line(world.ids[0], "succeeded", 1)
    world.bucket.write = goes_on  # type: ignore[method-assign]
    world.tick()
    world.work()
    world.bucket.write = write  # type: ignore[method-assign]
    assert (world.pending, world.mark is not None) == ({world.ids[1]}, True)
    world.line(world.ids[1], "succeeded", 1)
    world.pending.clear()
    world.settle()
    assert world.told["counts"]["succeeded"] == 2
    assert world.told["end"] == "on_complete"


def test_a_replay_in_parts_while_its_round_is_fired_begins_another() -> None:
    world = ready(World(count=2), "dead")
    world.settle()
    world.line(world.ids[0], "replayed", 1)
    rounds.begin(world.bucket, ID, "a-1")
    world.line(world.ids[0], "succeeded", 1)
    assert world.mark is not None
    told = Firing(world.clock.now(), End.FAILURE, 2, {"succeeded": 1, "dead": 1})
    firing = marks.write(world.bucket, replace(world.mark, firing=told), ENDS)
    world.line(world.ids[1], "replayed", 1)
    rounds.begin(world.bucket, ID, "a-1")
    assert world.mark is not None
    assert (world.mark.round, world.mark.firing) == (firing.round + 1, None)


def test_a_replay_takes_the_stored_proof_away() -> None:
    """Nobody may ask until the outcomes have expired: then it would be told as it was stored."""
    world = ready(World(), "dead")
    world.settle()
    assert world.bucket.info(stored_proof_object(ID)) is not None
    world.replay()
    assert world.bucket.info(stored_proof_object(ID)) is None
