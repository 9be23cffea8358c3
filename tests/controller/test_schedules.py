"""Schedules: each due time submits its task once, whatever is killed, repeated or wrong with a clock; of missed ones only the newest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.clock import from_iso, iso
from batch.model.errors import DependencyUnavailable, SettingsError
from batch.model.message import keyed_task_id
from batch.model.names import lane_state_object
from controller.act.state import load
from controller.decide.decision import Kind
from controller.lanes.lanes import lane_of
from controller.model.lane import Lane
from controller.model.schedule import MISSED_S, Schedule, Scheduled, brought_up, due, schedule_of
from controller.tick.outside import Memory, Outside
from controller.tick.rounds import tick_lanes
from tests.controller.fakes import World, job, lane, tick, world
from tests.controller.test_two_controllers import Killed, Mortal

TASK = '{"task_type": "report", "day": "yesterday"}'
AT_THREE = Schedule("report", "0 3 * * *", "UTC", TASK)
HOUR_S, DAY_S = 3600.0, 86400.0


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def scheduled(*schedules: Schedule) -> Lane:
    return lane(schedules=schedules or (AT_THREE,))


def ids(here: World) -> list[str]:
    return [message.attributes["task_id"] for _, message in here.broker.topic("tasks").published]


def id_of(due_s: float, name: str = "report") -> str:
    return keyed_task_id("default", f"fanout.schedule/default/{name}/{iso(due_s)}")


def three(here: World) -> float:
    """The next 03:00, and the clock a little after it, once the schedule is known."""
    tick(scheduled(), here.outside)
    here.clock.advance(3 * HOUR_S + 20)
    return here.clock.now() - 20


# --- the annotation


def test_an_annotation_is_a_cron_expression_a_time_zone_and_a_task() -> None:
    text = "0 3 * * *; Europe/Berlin; " + '{"task_type": "report", "day": "a; b"}'
    found = lane_of(job(**{"schedule-report": text, "schedule-a": f"*/5 * * * *;UTC;{TASK}"})).policy.schedules
    assert found == (
        Schedule("a", "*/5 * * * *", "UTC", TASK),
        Schedule("report", "0 3 * * *", "Europe/Berlin", '{"task_type": "report", "day": "a; b"}'),
    )


def test_all_problems_of_all_schedules_come_at_once() -> None:
    wrong = job(
        **{
            "schedule-Two": "61 3 * * *; Europe/Berlim; [1]",
            "schedule-b": "0 3 * * *",
            "schedule-c": f"0 0 30 2 *; UTC; {TASK}",
            "schedule-d": '0 0 * *; UTC; {"task_type": "a", "task_id": "x"}',
            "schedule-e": '0 0 * * *; UTC; {"task_type": "a", "idempotency_key": "x"}',
            "shedule-f": f"0 0 * * *; UTC; {TASK}",
        }
    )
    with pytest.raises(SettingsError) as caught:
        lane_of(wrong)
    two, b, c, d, e, unknown = caught.value.problems
    assert "fanout/schedule-Two" in two
    assert "a schedule's name is lower-case" in two
    assert "did you mean Europe/Berlin?" in two
    assert "'61 3 * * *' is no cron expression: Bad minute" in two
    assert "the task: a task is a JSON object, got list" in two
    assert "a cron expression, a time zone and a task, such as" in b
    assert "'0 0 30 2 *'" in c
    assert "minute, hour, day of the month" in d
    assert "the task: task_id must be left out" in d
    assert "idempotency_key must be left out" in e
    assert "did you mean fanout/schedule-<name>?" in unknown


@given(
    st.text()
    | st.builds("{};{};{}".format, st.text(alphabet="0123456789*/-,#LWMON "), st.sampled_from(["UTC", "Europe", "../x", "\0"]), st.text())
)
def test_any_text_is_a_schedule_or_a_rule(text: str) -> None:
    with suppress(ValueError):
        assert schedule_of("a", text).task


# --- when


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        ("2026-01-01T03:00", "2026-01-02T02:59:59", None),
        ("2026-01-01T03:00", "2026-01-02T03:00", "2026-01-02T03:00"),
        ("2026-01-01T03:00", "2026-01-05T02:00", "2026-01-04T03:00"),
        ("2026-01-01T03:00", "2026-01-01T02:00", None),
        ("2026-01-01T02:59:59.900", "2026-01-01T03:00:00", "2026-01-01T03:00"),
        ("2026-01-01T03:00:00.500", "2026-01-01T03:00:00.900", None),
    ],
)
def test_the_newest_time_since_the_last_is_due(last: str, now: str, expected: str | None) -> None:
    assert due(AT_THREE, at(last), at(now)) == (None if expected is None else at(expected))


def test_what_was_missed_longer_ago_than_a_day_is_not_run() -> None:
    monthly = Schedule("bill", "0 0 1 * *", "UTC", TASK)
    last, missed = at("2026-01-01T00:00"), at("2026-02-01T00:00")
    assert due(monthly, last, missed + MISSED_S - 1) == missed
    assert due(monthly, last, missed + MISSED_S + 1) is None


def all_due(cron: str, zone: str, start: float, end: float, step_s: float = 60.0) -> list[float]:
    """What a tick every `step_s` finds."""
    known = brought_up([Schedule("a", cron, zone, TASK)], (), start)
    found = []
    now = start
    while now < end:
        now += step_s
        after = brought_up([Schedule("a", cron, zone, TASK)], known, now)
        if after != known:
            found.append(after[0].last)
        known = after
    return found


def test_a_time_that_the_clock_skips_is_run_once_after_the_gap() -> None:
    berlin = "Europe/Berlin"
    found = all_due("30 2 * * *", berlin, at("2026-03-28T12:00", berlin), at("2026-03-30T12:00", berlin))
    assert found == [at("2026-03-29T03:00", berlin), at("2026-03-30T02:30", berlin)]


def test_a_time_that_the_clock_repeats_is_run_once() -> None:
    berlin = "Europe/Berlin"
    found = all_due("30 2 * * *", berlin, at("2026-10-24T12:00", berlin), at("2026-10-26T12:00", berlin))
    assert found == [at("2026-10-25T02:30", berlin), at("2026-10-26T02:30", berlin)]
    # Also for a schedule that is new in the second of both hours.
    second = at("2026-10-25T02:10", berlin, fold=1)
    assert all_due("30 2 * * *", berlin, second, second + 2 * HOUR_S) == []


def test_what_comes_every_hour_comes_in_both_hours_that_the_clock_repeats() -> None:
    berlin = "Europe/Berlin"
    start = at("2026-10-25T01:15", berlin)
    assert all_due("30 * * * *", berlin, start, start + 4 * HOUR_S) == [start + 900 + hour * HOUR_S for hour in range(4)]


def test_a_schedule_that_is_new_or_has_other_times_begins_with_the_next() -> None:
    noon = at("2026-01-01T12:00")
    (known,) = brought_up([AT_THREE], (), noon)
    assert (known.last, known.task) == (noon, "")
    other = replace(AT_THREE, cron="0 11 * * *")
    (changed,) = brought_up([other], [replace(known, last=noon - 2 * DAY_S)], noon)
    assert (changed.last, changed.task) == (noon, "")
    (edited,) = brought_up([replace(AT_THREE, task='{"task_type": "b"}')], [known], noon + DAY_S)
    assert (edited.last, edited.task) == (at("2026-01-02T03:00"), '{"task_type": "b"}')
    assert brought_up([], [known], noon) == ()


def test_a_clock_that_goes_back_runs_nothing_twice() -> None:
    every = Schedule("a", "*/10 * * * *", "UTC", TASK)
    known: Sequence[Scheduled] = brought_up([every], (), at("2026-01-01T12:00"))
    seen: Counter[float] = Counter()
    for minute in [*range(120), *range(60, 120), *range(30, 240)]:
        known, before = brought_up([every], known, at("2026-01-01T12:00") + minute * 60), known
        seen.update([known[0].last] if known != before else [])
    assert sorted(seen) == [at("2026-01-01T12:00") + 600 * number for number in range(1, 24)]
    assert set(seen.values()) == {1}


def test_a_time_saved_by_a_clock_that_was_years_ahead_holds_up_nothing() -> None:
    noon = at("2026-01-01T12:00")
    (found,) = brought_up([AT_THREE], [Scheduled("report", AT_THREE.times, noon + 400 * DAY_S)], noon)
    assert found == Scheduled("report", AT_THREE.times, noon)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zone", "changes"),
    [
        ("Europe/Berlin", ("2026-03-29", "2026-10-25")),
        ("America/New_York", ("2026-03-08", "2026-11-01")),
        ("Australia/Lord_Howe", ("2026-04-05", "2026-10-04")),
    ],
)
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 * * * *", "0 1-3 * * *", "15 * * * *", "0 3 L * *"])
def test_around_a_change_of_the_clock_many_ticks_find_what_few_find_and_each_time_once(
    cron: str, zone: str, changes: tuple[str, str]
) -> None:
    for change in changes:
        start = at(change, zone) - DAY_S
        found = all_due(cron, zone, start, start + 3 * DAY_S)
        assert found == sorted(set(found))
        assert set(all_due(cron, zone, start, start + 3 * DAY_S, step_s=7 * 60.0)) == set(found)
        if cron == "*/15 * * * *":
            assert {after - before for before, after in pairwise(found)} == {900.0}
        if cron == "30 2 * * *":
            assert len({datetime.fromtimestamp(one, ZoneInfo(zone)).date() for one in found}) == len(found) == 3


@pytest.mark.slow
def test_months_of_ticks_run_each_day_once() -> None:
    start = at("2026-02-20T00:00", "Europe/Berlin")
    found = all_due("30 2 * * *", "Europe/Berlin", start, start + 270 * DAY_S, step_s=300.0)
    assert len({datetime.fromtimestamp(one, ZoneInfo("Europe/Berlin")).date() for one in found}) == len(found) == 270


# --- the tick


def test_what_is_due_is_published_once_and_counts_in_the_same_decision() -> None:
    here = world()
    here.backlog_is(0)
    due_s = three(here)
    here.backlog_is(0)
    result = tick(scheduled(), here.outside)
    assert ids(here) == [id_of(due_s)]
    ((_, message),) = here.broker.topic("tasks").published
    assert json.loads(message.data) | {"task_id": "", "submitted_at": ""} == json.loads(TASK) | {"task_id": "", "submitted_at": ""}
    assert result.decision.kind is Kind.LAUNCH
    assert [note for note in result.notes if "schedule report" in note] == [
        f"schedule report, due {iso(due_s)}: submitted task {id_of(due_s)}"
    ]
    for _ in range(5):
        here.clock.advance(60)
        tick(scheduled(), here.outside)
    assert ids(here) == [id_of(due_s)]
    here.clock.advance(DAY_S)
    tick(scheduled(), here.outside)
    assert ids(here) == [id_of(due_s), id_of(due_s + DAY_S)]


def test_a_paused_lane_s_schedules_go_on() -> None:
    here = world()
    due_s = three(here)
    tick(replace(scheduled(), policy=replace(scheduled().policy, paused=True)), here.outside)
    assert ids(here) == [id_of(due_s)]
    assert not here.runner.requests


def test_a_tick_without_anything_due_costs_no_request_more() -> None:
    def requests(here: World, one: Lane) -> int:
        here.backlog_is(0)
        tick(one, here.outside)
        tick(one, here.outside)
        here.clock.advance(60)
        here.backlog_is(0)
        counting = Mortal(0, after=False)
        tick(one, replace(mortal_outside(here, counting), memory=here.outside.memory))
        return counting.count

    assert requests(world(), scheduled()) == requests(world(), lane())


def test_a_tick_with_a_due_time_writes_the_state_twice() -> None:
    here = world()
    three(here)
    before = load(here.store, "default").state.epoch
    result = tick(scheduled(), here.outside)
    assert result.decision.kind is Kind.LAUNCH
    assert load(here.store, "default").state.epoch - before == 2


def test_a_dry_run_publishes_and_saves_nothing() -> None:
    here = world()
    three(here)
    before = load(here.store, "default")
    assert tick(scheduled(), here.outside, dry_run=True).decision.kind is Kind.LAUNCH
    assert load(here.store, "default") == before
    assert ids(here) == []


def test_a_topic_that_is_down_gets_the_task_at_the_next_tick_even_if_the_annotation_has_changed() -> None:
    here = world()
    due_s = three(here)
    paused = replace(scheduled(), policy=replace(scheduled().policy, paused=True))
    for _ in range(20):  # longer than what was accepted counts, so that nothing else is to do
        here.broker.topic("tasks").fail_next("publish", DependencyUnavailable("503"))
        (note,) = [one for one in tick(paused, here.outside).notes if "schedule" in one]
        assert "not known to be published, the next tick publishes it: 503" in note
        here.clock.advance(60)
    tick(scheduled(replace(AT_THREE, task='{"task_type": "other"}')), here.outside)
    assert ids(here) == [id_of(due_s)]
    assert b"yesterday" in here.broker.topic("tasks").published[0][1].data


def test_a_refused_bucket_or_a_lost_race_publishes_nothing() -> None:
    here = world()
    three(here)
    here.store.fail_next("write", DependencyUnavailable("503"))
    tick(scheduled(), here.outside)
    assert ids(here) == []


def mortal_outside(here: World, mortal: Mortal) -> Outside:
    outside = here.outside
    store, runner = mortal.wrap(outside.store), mortal.wrap(outside.runner)
    return replace(outside, store=store, runner=runner, topic=lambda name: mortal.wrap(outside.topic(name)), memory=Memory())


@pytest.mark.parametrize("launching", [True, False])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_request_submits_the_task_under_one_id_in_the_end(launching: bool, after: bool) -> None:
    steps = 0
    for number in range(1, 40):
        here, mortal = world(), Mortal(number, after=after)
        due_s = three(here)
        one = scheduled() if launching else replace(scheduled(), policy=replace(scheduled().policy, paused=True))
        try:
            tick(one, mortal_outside(here, mortal))
        except Killed:
            steps += 1
        later = replace(here.outside, memory=Memory())
        for _ in range(3):
            here.clock.advance(60)
            tick(one, later)
        assert set(ids(here)) == {id_of(due_s)}
        assert len({message.data for _, message in here.broker.topic("tasks").published}) == 1
        if mortal.count < number:
            break
    assert steps >= 6


def test_of_two_controllers_at_once_one_publishes() -> None:
    here = world()
    due_s = three(here)
    other = replace(here.outside, memory=Memory())
    done: list[bool] = []

    class Interrupted:
        """The other controller ticks just before this one saves."""

        def __getattr__(self, name: str) -> object:
            if name == "write" and not done:
                done.append(True)
                tick(scheduled(), other)
            return getattr(here.store, name)

    tick(scheduled(), replace(here.outside, store=Interrupted()))  # type: ignore[arg-type]
    assert ids(here) == [id_of(due_s)]


def test_a_state_without_schedules_is_read() -> None:
    here = world()
    tick(lane(), here.outside)
    assert "scheduled" not in json.loads(here.store.read(lane_state_object("default")))
    assert load(here.store, "default").state.scheduled == ()


def test_a_round_of_all_lanes_submits_what_is_due() -> None:
    here = world([job(**{"schedule-report": f"0 3 * * *; UTC; {TASK}"})])
    tick_lanes(here.outside)
    here.clock.advance(3 * HOUR_S + 20)
    tick_lanes(here.outside)
    assert ids(here) == [id_of(from_iso("2026-01-01T03:00:00Z"))]
