"""What lanes drain: what keeps a lane from being drained holds it, in one sentence; what cannot be read holds nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.pubsub_v1 import types

from batch.dead.lanes import read_lanes
from batch.model.errors import DependencyForbidden, DependencyUnavailable
from controller.decide.decision import HoldCause, Kind
from controller.lanes.rules import Home
from controller.observe.sources import subscription_facts
from controller.service.service import create_app
from controller.tick.found import SOURCES_KEPT_S
from controller.tick.results import Round, explained_round
from controller.tick.rounds import tick_lanes
from tests.controller.fakes import World, job, world
from tests.controller.http_client import Client

DOWN = DependencyUnavailable("503")


@pytest.fixture
def here() -> World:
    found = world([job(), job("bulk", topic="bulk")])
    found.backlog_is(10)
    return found


def reasons(outcome: Round) -> dict[str, str]:
    """By lane why it is on hold, for its configuration."""
    held = [one.decision for one in outcome.results if one.decision.hold_cause is HoldCause.MISCONFIGURED]
    return {one.lane: one.reason for one in held}


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        (None, "subscription tasks-sub: it does not exist: what is published", "`fanout doctor default --fix` creates it"),
        ({"topic": ""}, "its topic was deleted: tasks that are submitted", "`fanout launch default --workers 1`"),
        ({"is_detached": True}, "it was detached from its topic", "delete it, create it"),
        ({"topic": "projects/other/topics/tasks"}, "it is of topic projects/other/topics/tasks, the lane's topic is tasks", "delete it"),
        ({"push_endpoint": "https://x.example"}, "it pushes to https://x.example", "update tasks-sub --push-endpoint="),
        ({"exports_to": "table p.d.t of BigQuery"}, "it writes to table p.d.t of BigQuery", "--clear-bigquery-config"),
        ({"exports_to": "bucket b"}, "it writes to bucket b", "--clear-cloud-storage-config"),
        ({"is_ordered": True}, "it has message ordering enabled", "create a subscription without it"),
        ({"message_filter": "NOT attributes:delayed"}, "its filter names the attribute delayed", "a filter cannot be changed"),
    ],
)
def test_a_source_that_keeps_a_lane_from_being_drained_holds_it(here: World, changes: dict[str, Any] | None, what: str, fix: str) -> None:
    if changes is None:
        del here.sources.found["tasks-sub"]
    else:
        here.sources.change("tasks-sub", **changes)
    outcome = tick_lanes(here.outside)
    assert set(reasons(outcome)) == {"default"}
    assert what in reasons(outcome)["default"]
    assert fix in reasons(outcome)["default"]
    assert [one.decision.kind for one in outcome.results] == [Kind.LAUNCH, Kind.HOLD]
    assert [request[0].rsplit("/", 1)[-1] for request in here.runner.requests] == ["bulk"]


def test_a_subscription_that_the_listing_does_not_show_yet_is_asked_for(here: World) -> None:
    here.sources.hidden = {"tasks-sub"}
    assert reasons(tick_lanes(here.outside)) == {}
    assert here.sources.calls == ["subscriptions", "subscription"]


def test_what_cannot_be_read_holds_nothing(here: World) -> None:
    here.sources.errors = {"subscriptions": DependencyForbidden("cannot list the subscriptions: 403; it needs roles/pubsub.viewer")}
    assert [one.decision.kind for one in tick_lanes(here.outside).results] == [Kind.LAUNCH, Kind.LAUNCH]
    (lane, _) = Client(create_app(here.outside)).get("/lanes").json()["lanes"]
    assert lane["problems"] == []
    assert lane["advice"] == ["what it drains was not checked: cannot list the subscriptions: 403; it needs roles/pubsub.viewer"]


@pytest.mark.parametrize("error", [None, DOWN])
def test_ticks_of_one_minute_ask_once_whatever_the_answer(here: World, error: Exception | None) -> None:
    here.sources.errors = {} if error is None else {"subscriptions": error}
    for _ in range(4):
        tick_lanes(here.outside)
        tick_lanes(here.outside, ["bulk"])
        here.clock.advance(SOURCES_KEPT_S / 4)
    assert here.sources.calls == ["subscriptions"]
    here.clock.advance(60 - SOURCES_KEPT_S)
    tick_lanes(here.outside)
    assert here.sources.calls == ["subscriptions"] * 2


def test_a_lane_that_is_new_is_asked_about_at_once(here: World) -> None:
    tick_lanes(here.outside)
    made = world([*here.runner.jobs(), job("urgent")])
    outside = replace(here.outside, runner=made.runner)
    assert "subscription urgent-sub: it does not exist" in reasons(tick_lanes(outside))["urgent"]


def test_the_service_and_the_tick_tell_the_same(here: World) -> None:
    here.sources.change("bulk-sub", topic="")
    told = reasons(tick_lanes(here.outside, dry_run=True))["bulk"]
    bulk, default = Client(create_app(here.outside)).get("/lanes").json()["lanes"]
    assert (bulk["problems"], default["problems"]) == ([told], [])


def test_who_else_gets_what_is_published_again_is_advice(here: World) -> None:
    here.sources.found |= {
        "audit": here.sources.found["tasks-sub"],
        "filtered": replace(here.sources.found["tasks-sub"], message_filter="NOT attributes:delayed"),
        "gone": replace(here.sources.found["tasks-sub"], is_detached=True),
    }
    here.runner._jobs = [*here.runner.jobs(), job("refused", weight="-4")]
    here.sources.found["refused-sub"] = here.sources.found["tasks-sub"]
    outcome = tick_lanes(here.outside)
    assert reasons(outcome) == {}
    bulk, default = Client(create_app(here.outside)).get("/lanes").json()["lanes"]
    assert [list(one.notes) for one in outcome.results] == [bulk["advice"], default["advice"]]
    assert bulk["advice"] == []
    assert default["advice"][0].startswith("topic tasks has other subscriptions, which get again what is published again: audit; ")


# --- lanes whose job is gone


def without(here: World, *names: str) -> World:
    """The same project, in which somebody has deleted these jobs."""
    left = [one for one in here.runner.jobs() if one.name not in names]
    here.runner._jobs = left
    return here


def test_a_lane_without_a_job_is_told_until_its_subscription_is_gone_too(here: World) -> None:
    tick_lanes(here.outside)
    without(here, "bulk")
    for seconds in (60, 700):
        here.clock.advance(seconds)
        outcome = tick_lanes(here.outside)
        ((refused),) = outcome.refused
        assert (refused.job, len(refused.problems)) == ("bulk", 1)
        assert "lane bulk has no job any more: it was deleted, or lost its label fanout-lane" in refused.problems[0]
        assert "`gcloud pubsub subscriptions delete bulk-sub` ends the lane, with all that waits" in refused.problems[0]
        assert f"  {refused.problems[0]}" in explained_round(outcome)
        assert set(read_lanes(here.store)) == {"default", "bulk"}
    assert [one["job"] for one in Client(create_app(here.outside)).get("/lanes").json()["refused"]] == ["bulk"]
    del here.sources.found["bulk-sub"]
    here.clock.advance(60)
    assert tick_lanes(here.outside).refused == ()
    assert set(read_lanes(here.store)) == {"default"}


def test_who_looks_in_the_wrong_region_is_not_told_to_end_lanes(here: World) -> None:
    tick_lanes(here.outside)
    elsewhere = replace(without(here, "default", "bulk").outside, home=Home("p", "bucket", "europe-west1"))
    refused = tick_lanes(elsewhere).refused
    said = "(looked for in region europe-west1: if it is in another, set REGION to that, and change nothing)"
    assert [said in one.problems[0] for one in refused] == [True, True]


def test_a_lane_without_a_job_is_asked_for_by_name_and_the_answer_says_why(here: World) -> None:
    tick_lanes(here.outside)
    response = Client(create_app(without(here, "bulk").outside)).post("/tick/bulk")
    assert response.status_code == 404
    assert "lane bulk has no job any more" in response.json()["error"]


def test_a_lane_that_has_another_name_now_is_forgotten(here: World) -> None:
    tick_lanes(here.outside)
    renamed = replace(job("large", topic="bulk", subscription="bulk-sub"))
    here.runner._jobs = [*without(here, "bulk").runner.jobs(), renamed]
    here.clock.advance(60)
    assert tick_lanes(here.outside).refused == ()
    assert set(read_lanes(here.store)) == {"default", "large"}


def test_a_job_that_is_refused_for_now_is_told_once_and_its_lane_stays_on_record(here: World) -> None:
    tick_lanes(here.outside)
    here.runner._jobs = [*without(here, "bulk").runner.jobs(), job("bulk", topic="bulk", weight="-4")]
    here.clock.advance(60)
    (refused,) = tick_lanes(here.outside).refused
    assert "no job any more" not in refused.problems[0]
    assert set(read_lanes(here.store)) == {"default", "bulk"}


def test_while_subscriptions_cannot_be_read_no_lane_is_told_to_be_gone_or_forgotten(here: World) -> None:
    tick_lanes(here.outside)
    here.sources.errors = {"subscriptions": DOWN}
    without(here, "bulk")
    here.clock.advance(60)
    assert tick_lanes(here.outside).refused == ()
    assert set(read_lanes(here.store)) == {"default", "bulk"}


# --- what the answers of Pub/Sub say


def subscription(**fields: Any) -> types.Subscription:
    given = {"name": "projects/p/subscriptions/s", "topic": "projects/p/topics/t", "ack_deadline_seconds": 60, **fields}
    return types.Subscription(given)


def test_names_of_another_project_are_full_ones() -> None:
    assert subscription_facts(subscription()).topic == "t"
    assert subscription_facts(subscription(topic="projects/q/topics/t")).topic == "projects/q/topics/t"
    assert subscription_facts(subscription(topic="_deleted-topic_")).topic == ""


def test_who_gets_the_messages_instead_of_who_pulls() -> None:
    found = subscription_facts(subscription(push_config={"push_endpoint": "https://x.example"}))
    assert (found.push_endpoint, found.exports_to) == ("https://x.example", "")
    assert subscription_facts(subscription(bigquery_config={"table": "p.d.t"})).exports_to == "table p.d.t of BigQuery"
    assert subscription_facts(subscription(cloud_storage_config={"bucket": "b"})).exports_to == "bucket b"
    assert subscription_facts(subscription(detached=True)).is_detached
