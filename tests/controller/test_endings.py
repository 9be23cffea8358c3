"""A tick looks which submissions may have ended: by few requests, whichever lanes there are, and without holding one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from batch.ends import marks
from batch.ends.counting import Seen
from batch.ends.marks import Mark
from batch.ends.options import Ends
from batch.model.errors import DependencyUnavailable
from batch.model.message import decode, rolling_shard
from batch.model.names import mark_object, outcome_object, submission_object
from batch.model.outcomes import Outcome, counted, to_line
from controller.act.endings import MOST_PER_TICK, Known, chosen
from controller.decide.decision import Kind
from controller.tick.results import explained_round, round_json
from controller.tick.rounds import tick_lanes
from tests.controller.fakes import World, job, world

ENDS = Ends({"task_type": "report"})


@pytest.fixture
def here() -> Iterator[World]:
    made = world([job(), job("bulk", topic="bulk")])
    yield made
    assert made.store.unmet() == []


def submit(here: World, submission_id: str, count: int = 2, lane: str = "default", shard: str = "", *, closed: bool = True) -> None:
    """With its mark, as a client leaves it."""
    marks.write(here.store, Mark(submission_id, lane), ENDS)
    if closed:
        body = {"task_count": count, "lane": lane, "shards": [shard or submission_id], "ends": {"on_complete": {"task_type": "report"}}}
        here.store.write(submission_object(submission_id), json.dumps(body).encode())


def end(here: World, ids: list[str], count: int = 2, shard: str = "") -> None:
    """A worker writes how so many tasks of each of these ended."""
    shard = shard or ids[0]
    ended = [("succeeded", one) for one in ids for _ in range(count)]
    lines = b"".join(to_line(Outcome(f"{number}", "t", "succeeded", "now")) for number in range(len(ended)))
    name = outcome_object(shard, here.clock.now(), f"e-{here.outside.rng.getrandbits(60)}", 0)
    here.store.write(name, lines, metadata=counted(shard, ended))


def finishes(here: World, topic: str = "tasks") -> list[tuple[str, str, int]]:
    """Submission, lane and round of each `fanout.finish`."""
    found = []
    for message_id, one in here.broker.topic(topic).published:
        task = decode(one.data, one.attributes, message_id=message_id, published_s=here.clock.now(), lane="default")
        assert task.task_type == "fanout.finish"
        found.append((task.fields["submission_id"], task.fields["lane"], task.fields["round"]))
    return found


def test_one_that_has_ended_is_proven_by_a_worker_that_the_same_tick_launches(here: World) -> None:
    for number in range(3):
        submit(here, f"s-{number}")
    end(here, ["s-1"])
    end(here, ["s-2"], 1)
    here.backlog_is(0)
    outcome = tick_lanes(here.outside)
    assert finishes(here) == [("s-1", "default", 0)]
    assert [name.rsplit("/", 1)[-1] for name, _ in here.runner.requests] == ["default"]
    told = round_json(outcome)["ends"]
    assert (told["open_count"], told["looked_count"], told["finish_count"], told["problems"]) == (3, 3, 1, [])
    assert explained_round(outcome)[-1] == f"ends: 3 submissions of 3 looked at, 1 may have ended ({told['request_count']} requests)"
    ((_, finish),) = here.broker.topic("tasks").published
    mark = marks.standing(here.store, "default", "s-1")
    assert mark is not None
    assert mark.told.task_id == finish.attributes["task_id"], "so that `fanout status` can tell what it failed with"
    tick_lanes(here.outside)
    assert len(finishes(here)) == 1


def test_where_no_end_is_to_be_fired_a_tick_says_nothing_and_lists_once(here: World) -> None:
    outcome = tick_lanes(here.outside)
    assert (outcome.endings.request_count, outcome.endings.open_count) == (1, 0)
    assert not [line for line in explained_round(outcome) if line.startswith("ends")]


def test_neither_a_dry_run_nor_a_tick_of_one_lane_looks(here: World) -> None:
    submit(here, "s-1")
    end(here, ["s-1"])
    tick_lanes(here.outside, dry_run=True)
    tick_lanes(here.outside, ["default"])
    assert finishes(here) == []


def test_with_2000_open_submissions_each_tick_asks_little_and_each_is_looked_at_in_turn(here: World) -> None:
    shard = rolling_shard("default", here.clock.now())
    ids = [f"s-{number}" for number in range(2000)]
    for one in ids[:1000]:
        submit(here, one)
    for one in ids[1000:]:
        submit(here, one, shard=shard)
    end(here, ["s-1500"], shard=shard)
    end(here, ["s-500"])
    asked = []
    for _ in range(11):
        here.clock.advance(60)
        asked.append(tick_lanes(here.outside).endings)
    assert sorted(finishes(here)) == [("s-1500", "default", 0), ("s-500", "default", 0)]
    assert {(one.open_count, one.looked_count) for one in asked} == {(2000, MOST_PER_TICK)}
    most = 2 + 2 * MOST_PER_TICK + 1 + 2 * 5  # pages, submission.json and shard of each, the shared shard, and what two finishes take
    print("requests a tick:", [one.request_count for one in asked])
    assert max(one.request_count for one in asked) <= most
    assert asked[-1].request_count <= 2 + MOST_PER_TICK + 1 + 5, "how many tasks there are was asked again"


def test_an_open_one_is_looked_at_and_not_ended(here: World) -> None:
    submit(here, "s-1", closed=False)
    end(here, ["s-1"])
    assert (tick_lanes(here.outside).endings.looked_count, finishes(here)) == (1, [])
    submit(here, "s-2", 0)
    tick_lanes(here.outside)
    assert finishes(here) == [("s-2", "default", 0)]


def test_the_lane_that_an_annotation_names_fires_the_ends(here: World) -> None:
    here.runner.set_annotation("projects/p/locations/r/jobs/default", "fanout/callbacks", "bulk")
    submit(here, "s-1")
    submit(here, "s-2", lane="gone")
    end(here, ["s-1"])
    end(here, ["s-2"])
    outcome = tick_lanes(here.outside)
    assert (finishes(here, "bulk"), finishes(here)) == ([("s-1", "default", 0)], [("s-2", "gone", 0)])
    assert outcome.endings.sent == {"bulk": 1, "default": 1}


def test_a_lane_for_callbacks_that_does_not_exist_is_told_and_the_mark_stays(here: World) -> None:
    here.runner.set_annotation("projects/p/locations/r/jobs/default", "fanout/callbacks", "calls")
    submit(here, "s-1")
    end(here, ["s-1"])
    outcome = tick_lanes(here.outside)
    assert outcome.endings.problems == (
        "ends of lane default wait: there is no lane 'calls' to fire them; name one as fanout/callbacks of default",
    )
    assert all(one.decision.kind is not Kind.HOLD for one in outcome.results)
    here.runner.set_annotation("projects/p/locations/r/jobs/default", "fanout/callbacks", "bulk")
    tick_lanes(here.outside)
    assert finishes(here, "bulk") == [("s-1", "default", 0)]


def test_a_bucket_that_is_down_is_told_and_holds_no_lane_for_it(here: World) -> None:
    submit(here, "s-1")
    here.store.fail_next("list", DependencyUnavailable("503"))
    outcome = tick_lanes(here.outside)
    assert outcome.endings.problems == ("ends that are to be fired wait for the next tick: 503",)
    assert [one.decision.lane for one in outcome.results] == ["bulk", "default"]


@pytest.mark.parametrize("body", [b"[]", b'{"shards": [], "task_count": 1e999}', b'{"shards": 7, "task_count": 1}', b"\xff"])
def test_what_is_damaged_is_told_and_does_not_hold_up_the_others(here: World, body: bytes) -> None:
    for number in range(3):
        submit(here, f"s-{number}")
        end(here, [f"s-{number}"])
    here.store.write(submission_object("s-0"), body)
    here.store.write(mark_object("default", "s-1"), b"[]")
    outcome = tick_lanes(here.outside)
    assert finishes(here) == [("s-2", "default", 0)]
    assert sorted(problem.split()[0] for problem in outcome.endings.problems) == ["mark", "submissions/s-0/submission.json"]


def test_another_controller_that_was_faster_sends_alone(here: World) -> None:
    submit(here, "s-1")
    end(here, ["s-1"])
    original = here.store.write

    def write(name: str, *arguments: object, **options: object) -> object:
        if name == mark_object("default", "s-1"):
            here.store.write = original  # type: ignore[method-assign]
            tick_lanes(world_on(here).outside)
        return original(name, *arguments, **options)  # type: ignore[arg-type]

    here.store.write = write  # type: ignore[method-assign,assignment]
    assert tick_lanes(here.outside).endings.sent == {}
    assert finishes(here) == [("s-1", "default", 0)]


def world_on(here: World) -> World:
    """Another process of the controller, in the same cloud."""
    other = world([job(), job("bulk", topic="bulk")])
    object.__setattr__(other.outside, "store", here.store)
    object.__setattr__(other.outside, "topic", here.broker.topic)
    return other


def test_the_longest_unlooked_first_and_unknown_ones_in_any_order() -> None:
    many = [Mark(f"s-{number}", "default") for number in range(10)]
    known = {mark.name: Known(looked_at=float(at), seen={"s": Seen()}) for at, mark in enumerate(many[:6])}
    rng = random.Random(1)
    first = [[mark.submission_id for mark in chosen(many, known, rng, 6)] for _ in range(20)]
    assert {tuple(sorted(one[:4])) for one in first} == {("s-6", "s-7", "s-8", "s-9")}
    assert {tuple(one[4:]) for one in first} == {("s-0", "s-1")}
    assert len({tuple(one[:4]) for one in first}) > 5
