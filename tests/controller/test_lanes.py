"""Lanes from annotations: every problem at once, with what was meant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batch.dead.rules import Rules
from batch.model.errors import SettingsError
from batch.settings import WorkerSettings
from controller.lanes.annotations import ANNOTATIONS
from controller.lanes.lanes import lane_of, lanes_of
from controller.lanes.rules import Home
from controller.model.lane import Policy, Strategy
from controller.model.wording import duration, spoken
from controller.tick.outside import Memory
from tests.controller.fakes import job, worker


def test_a_lane_is_what_its_annotations_say() -> None:
    found = lane_of(job(drain_within="90s", weight="2.5", min_workers="3", paused="true"))
    assert (found.name, found.subscription, found.topic, found.concurrency) == ("default", "tasks-sub", "tasks", 4)
    assert found.policy == Policy(100, 3, 1000, 90.0, 2.5, True, max_wait_s=0.0)


def test_all_problems_come_at_once_with_path_value_and_rule() -> None:
    annotated = job(max_workers="0", weight="-1", drain_within="10", paused="yes", max_mesages="5", topic="x")
    wrong = replace(annotated, labels={"fanout-lane": "A B"})
    with pytest.raises(SettingsError) as caught:
        lane_of(wrong)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 7
    assert "job default: metadata.annotations[fanout/max-workers]='0': a whole number, 1 or more" in text
    assert "metadata.annotations[fanout/drain-within]='10': a duration above 0 such as 90s, 10m or 2h" in text
    assert "did you mean fanout/max-messages?" in text
    assert "metadata.labels[fanout-lane]='A B'" in text


def test_a_missing_subscription_is_a_problem() -> None:
    with pytest.raises(SettingsError, match=r"fanout/subscription\] is not set"):
        lane_of(replace(job(), annotations={"fanout/topic": "tasks"}))


@pytest.mark.parametrize("name", ["raw", "lanes", "unknown"])
def test_a_lane_cannot_have_the_name_of_another_folder(name: str) -> None:
    with pytest.raises(SettingsError, match="no lane can be called lanes, raw, unknown"):
        lane_of(job(name))


def test_min_workers_must_not_be_above_max_workers() -> None:
    with pytest.raises(SettingsError, match=r"min-workers=9 must not be above fanout/max-workers=3"):
        lane_of(job(min_workers="9", max_workers="3"))


def test_every_annotation_reaches_its_field() -> None:
    policy = lane_of(
        job(
            strategy="share",
            fixed_workers="7",
            max_in_flight="64",
            rate="2.5",
            min_backlog="30",
            max_wait="90s",
            first_share="250",
            floor="3",
            probe_after="20m",
            replay_errors="TimeoutError, 0123456789abcdef ,worker_died",
            replay_after="5m",
            replay_times="2",
            replay_rate="50",
        )
    ).policy
    assert (policy.strategy, policy.fixed_workers, policy.max_in_flight, policy.rate) == (Strategy.SHARE, 7, 64, 2.5)
    assert (policy.max_messages, policy.first_share) == (100, 250)
    assert (policy.min_backlog, policy.max_wait_s, policy.floor, policy.probe_after_s) == (30, 90.0, 3, 1200.0)
    assert policy.rules == Rules(("TimeoutError", "0123456789abcdef", "worker_died"), 300.0, 2, 50.0)
    assert {one.field for one in ANNOTATIONS.values() if not one.required} == set(Policy.__dataclass_fields__)


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"strategy": "dead-line"}, r"one of deadline, share, fixed; did you mean deadline\?"),
        ({"max_wait": "5"}, "0s \\(never wait\\), or a duration above 0"),
        ({"min_backlog": "5", "max_wait": "0s"}, "min-backlog does nothing with fanout/max-wait=0s, which never waits"),
        ({"strategy": "fixed"}, "needs fanout/fixed-workers"),
        ({"fixed_workers": "2000"}, "fixed-workers=2000 must not be above fanout/max-workers=1000"),
        ({"floor": "2000"}, "floor=2000 must not be above"),
        ({"rate": "0"}, "a number above 0"),
        ({"replay_errors": "TimeoutError, "}, "types of errors, such as TimeoutError, or fingerprints, separated by commas"),
        ({"replay_errors": "worker-died"}, "types of errors"),
        ({"replay_errors": "*", "replay_times": "0"}, "a whole number, 1 or more"),
        ({"replay_errors": "*", "replay_rate": "0.001"}, "a number of at least 0.01"),
        ({"replay_after": "5m"}, "do nothing without fanout/replay-errors"),
        ({"replay_error": "*"}, r"did you mean fanout/replay-errors\?"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(annotations: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        lane_of(job(**annotations))


def test_a_worker_that_runs_more_at_a_time_than_the_lane_may_is_a_problem() -> None:
    (problem,) = lane_of(job(max_in_flight="3")).problems
    assert "lower its CONCURRENCY=4" in problem


def test_a_wrong_job_does_not_hide_the_others() -> None:
    lanes, refused = lanes_of([job("urgent"), job(max_workers="many"), job("bulk")])
    assert [one.name for one in lanes] == ["bulk", "urgent"]
    assert [one.job for one in refused] == ["default"]


@pytest.mark.parametrize("odd", ["9" * 5000, "-1", "many", "0", "\u00bd"])
def test_settings_of_a_job_that_no_worker_would_take_do_not_hide_the_lanes(odd: str) -> None:
    lanes, refused = lanes_of([replace(job("a"), containers=(worker(job("a").annotations, CONCURRENCY=odd),)), job("b")])
    assert ([one.concurrency for one in lanes], refused) == ([WorkerSettings.concurrency, 4], [])


def test_two_jobs_may_not_share_a_lane_or_a_subscription() -> None:
    lanes, refused = lanes_of([job("a"), job("b", subscription="a-sub"), job("c")])
    assert [one.name for one in lanes] == ["c"]
    assert sorted(one.job for one in refused) == ["a", "b"]
    lanes, refused = lanes_of([job("a"), replace(job("b"), labels={"fanout-lane": "a"})])
    assert (lanes, len(refused)) == ([], 2)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("2h", 7200.0), ("1.5h", 5400.0), ("1d", 86400.0)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "-5m", "m", "1 h", "1h30m", "5w", "nan s", "9" * 400 + "d", "366d"])
def test_what_has_no_clear_unit_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="90s, 10m or 2h"):
        duration(text)


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (130, "2 min 10 s"), (600, "10 min"), (11_100, "3 h 5 min")])
def test_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


def test_a_job_is_judged_anew_only_when_it_has_changed() -> None:
    memory, one, home = Memory(), job(), Home("p", "bucket")
    judged = memory.lane_of(one, home)
    assert memory.lane_of(replace(one, execution_count=7, latest_execution="default-00007"), home) is judged
    container = replace(one.containers[0], env={**one.containers[0].env, "CONCURRENCY": "eight"})
    assert (judged.problems, bool(memory.lane_of(replace(one, containers=(container,)), home).problems)) == ((), True)
    assert memory.lane_of(one, home).problems == ()
    assert memory.lane_of(one, Home("other", "bucket")).problems
    assert memory.lane_of(replace(one, annotations={**one.annotations, "fanout/paused": "true"}), home).policy.paused
