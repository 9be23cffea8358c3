"""BROKEN (found by trying): what `fanout dead` could not do, or did though it was told not to."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import click
import pytest

from batch.dead import segments
from batch.dead.replaying import replay
from batch.model.clock import SystemClock
from batch.model.errors import DependencyUnavailable
from batch.model.names import dead_segment_object
from batch.testing.clock import START_S
from tests.batch.dead.log_of_letters import LANE, letter, published, write_log
from tests.fanout.test_dead import HANDLERS, Desk, desk  # noqa: F401


def lost(desk: Desk, lane: str) -> str:  # noqa: F811
    one = letter(1, lane=lane, kept_because="no lane drains subscription x: replay it to one with --to-lane")
    segments.write(desk.store, dead_segment_object(lane, START_S, "dl-1-0-0", 0), [one])
    return one.task_id


@pytest.mark.parametrize("lane", ["unknown", "old-lane"])
def test_letters_of_no_lane_can_be_seen_and_replayed_to_one(desk: Desk, lane: str) -> None:  # noqa: F811
    """The job logs them there and says `replay it to one with --to-lane`."""
    task_id = lost(desk, lane)
    named = [] if lane == "unknown" else ["--lane", lane]
    assert task_id in desk.dead("ls", *named)
    assert "--to-lane" in desk.dead("show", task_id, *named)
    assert f"--lane {lane} --to-lane LANE" in desk.dead("replay", "--id", task_id, *named, code=2)
    assert not desk.broker.topic("").published
    assert "there is no lane 'unknown'" in desk.dead("replay", "--id", task_id, *named, "--to-lane", "unknown", code=2)
    assert "1 dead letter replayed" in desk.dead("replay", "--id", task_id, *named, "--to-lane", "bulk")
    assert list(published(desk.broker, "bulk").values()) == [1]
    assert "no dead letter waits" in desk.dead("ls", *named)


def test_a_dry_run_of_a_resumption_publishes_nothing(desk: Desk) -> None:  # noqa: F811
    write_log(desk.store, [letter(1)])
    desk.broker.topic("tasks").fail_next("publish", DependencyUnavailable("down"))
    told: dict[str, Any] = {"details": {}, "rate": None, "clock": SystemClock(), "rng": random.Random(9), "who": "ann", "why": "fixed"}
    topics: Callable[[str], Any] = desk.broker.topic
    with pytest.raises(DependencyUnavailable):
        replay(desk.store, topics, LANE, lambda _: True, **told)
    (action_id,) = segments.folded(desk.store, segments.listed(desk.store, "default")).replays
    for given in (["--dry-run"], ["--rate", "5"], ["--error", "KeyError"], ["--to-lane", "bulk"], ["--limit", "1"]):
        assert "--resume" in desk.dead("replay", "--resume", action_id, *given, code=2)
    assert not published(desk.broker)
    desk.dead("replay", "--resume", action_id)
    assert published(desk.broker).total() == 1


@pytest.mark.parametrize("interrupted", [True, False], ids=["claimed", "replayed"])
def test_what_was_replayed_while_a_person_edited_it_is_not_said_to_be_edited(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    interrupted: bool,
) -> None:
    write_log(desk.store, [letter(1)])
    told: dict[str, Any] = {"details": {}, "rate": None, "clock": SystemClock(), "rng": random.Random(9), "who": "dl", "why": "retry rules"}
    topics: Callable[[str], Any] = desk.broker.topic

    def for_long(text: str, **_: Any) -> str:
        if interrupted:
            desk.broker.topic("tasks").fail_next("publish", DependencyUnavailable("down"))
            with pytest.raises(DependencyUnavailable):
                replay(desk.store, topics, LANE, lambda _: True, **told)
        else:
            replay(desk.store, topics, LANE, lambda _: True, **told)
        return text.replace('"width": 1', '"width": 5')

    monkeypatch.setattr(click, "edit", for_long)
    shown = desk.dead("edit", letter(1).task_id, "--handlers", HANDLERS, code=1)
    assert "nothing was written" in shown
    assert "edited" not in desk.acts()
