"""`fanout doctor` on services in memory: each thing that can be wrong is found, alone, with its reason and the command that fixes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from click.testing import Result

from batch.model.errors import DependencyForbidden, DependencyUnavailable
from batch.model.names import lane_state_object
from controller.act.state import load, save
from controller.config import ControllerSettings
from controller.model.reading import Unknown, Value
from controller.observe.jobs import JobInfo
from controller.observe.sources import SubscriptionFacts
from fanout import doctor
from fanout.doctor.finding import Finding, Verdict, report
from fanout.doctor.services import BucketFacts, NotServed
from tests.batch.traces import Bucket
from tests.controller.fakes import JOB, World, job, worker, world
from tests.fanout.doctor_fakes import DEAD_LETTERS_JOB, GOOD, TICK, FakeFacts, FakeFixer

Run = Callable[..., Result]
RIGHT: Mapping[str, str] = {"TASK_TIMEOUT_S": "600", "LANE": "default"}


@pytest.fixture
def facts(here: World, monkeypatch: pytest.MonkeyPatch) -> FakeFacts:
    """One lane, and all is well."""
    found = FakeFacts()

    @contextmanager
    def open_facts(settings: ControllerSettings) -> Iterator[FakeFacts]:
        yield found

    monkeypatch.setattr(doctor, "open_facts", open_facts)
    the_job(here, monkeypatch)
    here.backlog_is(0)
    return found


@pytest.fixture
def fixer(monkeypatch: pytest.MonkeyPatch) -> FakeFixer:
    found = FakeFixer()

    @contextmanager
    def open_fixer(settings: ControllerSettings) -> Iterator[FakeFixer]:
        yield found

    monkeypatch.setattr(doctor, "open_fixer", open_fixer)
    return found


def the_job(
    here: World,
    monkeypatch: pytest.MonkeyPatch,
    *,
    annotations: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    **changes: Any,
) -> None:
    """`env` over that of a right job."""
    given = job(**dict(annotations or {}))
    container = replace(worker(given.annotations, **{**RIGHT, **dict(env or {})}), filled=frozenset({"BUCKET_NAME"}))
    made: JobInfo = replace(given, **{"max_retries": 1, "containers": (container,), **changes})
    monkeypatch.setattr(here.runner, "jobs", world([made]).runner.jobs)


def not_fine(result: Result) -> list[dict[str, Any]]:
    return [one for one in json.loads(result.stdout)["findings"] if one["verdict"] != "fine"]


def test_where_all_is_well_it_says_what_it_looked_at(facts: FakeFacts, run: Run) -> None:
    result = run(doctor.command)
    assert (result.exit_code, result.output) == (0, "39 of 39 checks are fine\n")
    assert "fine: subscription tasks-sub: expiry: it never expires" in run(doctor.command, "--verbose").output


def test_a_deadline_that_no_worker_can_meet_by_the_gauge_alone(
    facts: FakeFacts, here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_job(here, monkeypatch, annotations={"drain_within": "2m"})
    result = run(doctor.command, "--json")
    (found,) = not_fine(result)
    assert (result.exit_code, found["about"], found["check"], found["verdict"]) == (0, "lane default", "drain-within", "advice")
    assert found["what"].endswith("with CONTROLLER_URL, which tells the controller at once, or set fanout/drain-within to 5m or more")
    stored = load(here.store, "default")
    save(here.store, stored.state.with_accepted(here.clock.now(), 5, "poke-1"), stored.generation, "a poke")
    assert not_fine(run(doctor.command, "--json")) == [], "a front door tells of its tasks"


@pytest.mark.parametrize(
    ("notified", "what"),
    [
        ([("", "tasks")], "topic tasks of lane default of every object, and Fanout writes its own there"),
        ([("input/", "tasks"), ("out", "tasks")], "of objects under 'out'"),
        ([("workers/x", "tasks")], "of objects under 'workers/x'"),
        ([("input/", "tasks"), ("outputs/", "tasks"), ("", "others")], ""),
    ],
)
def test_a_bucket_that_tells_a_lane_of_what_its_own_workers_write(
    facts: FakeFacts, here: World, run: Run, monkeypatch: pytest.MonkeyPatch, notified: list[tuple[str, str]], what: str
) -> None:
    """Each run would launch the next."""
    forms = {"accept": "gcs-notification", "default_type": "upload"}
    the_job(here, monkeypatch, annotations=forms, env={name.upper(): value for name, value in forms.items()})
    facts.notifications = notified
    found = {one["check"]: one["what"] for one in not_fine(run(doctor.command, "--json"))}
    assert found.keys() == ({"notifications-default"} if what else set())
    assert what in found.get("notifications-default", "")


@pytest.mark.parametrize(
    ("changes", "check", "what", "option", "new"),
    [
        ({"ack_deadline_s": 600}, "ack-deadline", "600 s, should be 60 s", "--ack-deadline=60", {"ack_deadline_seconds": 60}),
        ({"expires_after_s": 2678400.0}, "expiry", "after 31 days", "--expiration-period=never", {"expiration_policy": {}}),
        ({"has_retry_policy": True}, "retry-policy", "should have none", "--clear-retry-policy", {"retry_policy": None}),
        (
            {"retention_s": 600.0},
            "retention",
            "for 10 min, should be 7 days",
            "--message-retention-duration=7d",
            {"message_retention_duration": {"seconds": 604800}},
        ),
        (
            {"dead_letter_topic": "", "max_delivery_attempts": 0},
            "dead-letter-policy",
            "it has no dead-letter policy",
            "--dead-letter-topic=dead-letters --max-delivery-attempts=100",
            {"dead_letter_policy": {"dead_letter_topic": "projects/p/topics/dead-letters", "max_delivery_attempts": 100}},
        ),
        (
            {"max_delivery_attempts": 5},
            "dead-letter-policy",
            "after 5 deliveries",
            "--dead-letter-topic=dead-letters --max-delivery-attempts=100",
            {"dead_letter_policy": {"dead_letter_topic": "projects/p/topics/dead-letters", "max_delivery_attempts": 100}},
        ),
    ],
)
def test_settings_of_a_subscription(
    facts: FakeFacts, fixer: FakeFixer, run: Run, changes: dict[str, Any], check: str, what: str, option: str, new: dict[str, Any]
) -> None:
    facts.subscriptions["tasks-sub"] = replace(GOOD, **changes)
    result = run(doctor.command, "--json")
    (found,) = not_fine(result)
    assert result.exit_code == 1
    assert (found["about"], found["check"], found["verdict"], found["fixable"]) == ("subscription tasks-sub", check, "wrong", True)
    assert what in found["what"]
    assert found["why"]
    assert found["command"] == f"gcloud pubsub subscriptions update tasks-sub --project=p {option}"
    run(doctor.command, "--fix", "--yes")
    assert fixer.done == [("set_subscription", "tasks-sub", new)]


@pytest.mark.parametrize(
    ("changes", "check", "option", "done"),
    [
        ({"parallelism": 5}, "parallelism", "--parallelism=0", (0, None, None)),
        ({"max_retries": 3}, "max-retries", "--max-retries=1", (None, 1, None)),
        ({"task_timeout_s": 900.0}, "task-timeout", "--update-env-vars=TASK_TIMEOUT_S=900", (None, None, {"TASK_TIMEOUT_S": "900"})),
        ({"env": {"TASK_TIMEOUT_S": ""}}, "task-timeout", "--update-env-vars=TASK_TIMEOUT_S=600", (None, None, {"TASK_TIMEOUT_S": "600"})),
    ],
)
def test_settings_of_a_job(
    here: World,
    facts: FakeFacts,
    fixer: FakeFixer,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    check: str,
    option: str,
    done: tuple[Any, ...],
) -> None:
    the_job(here, monkeypatch, **changes)
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["about"], found["check"]) == ("job default", check)
    assert found["command"] == f"gcloud run jobs update default --project=p --region=us-central1 {option}"
    run(doctor.command, "--fix", "--yes")
    assert fixer.done == [("set_job", "default", *done)]


def test_what_a_person_must_decide_is_never_fixed(
    here: World, facts: FakeFacts, fixer: FakeFixer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_job(here, monkeypatch, env={"SUBSCRIPTION_NAME": "other"})
    facts.subscriptions["tasks-sub"] = replace(GOOD, topic="elsewhere", push_endpoint="https://x.example")
    facts.buckets = {"b": BucketFacts(604800.0, True, (("delayed/",), ("logs/",)))}
    facts.lacked = {("bucket", "b"): ["storage.objects.delete"], ("job", JOB): ["run.jobs.run"]}
    facts.ungranted = {("topic", "dead-letters"), ("subscription", "tasks-sub")}
    facts.calls = []
    result = run(doctor.command, "--fix", "--yes", "--json")
    found = {(one["about"], one["check"]): one for one in not_fine(result)}
    assert set(found) == {
        ("bucket b", "soft-delete"),
        ("bucket b", "versioning"),
        ("bucket b", "lifecycle"),
        ("bucket b", "permissions"),
        ("topic dead-letters", "service-agent"),
        ("job default", "rules"),
        ("job default", "permissions"),
        ("subscription tasks-sub", "topic"),
        ("subscription tasks-sub", "pull"),
        ("subscription tasks-sub", "service-agent"),
        ("Cloud Scheduler", "ticks"),
    }
    assert fixer.done == []
    assert not any(one["fixable"] for one in found.values())
    assert all(one["why"] and one["command"] for one in found.values())
    assert "objects under delayed/" in found["bucket b", "lifecycle"]["what"]
    agent = found["topic dead-letters", "service-agent"]["command"]
    assert agent.startswith("gcloud pubsub topics add-iam-policy-binding dead-letters --project=p --member=")
    assert "gcloud projects describe p --format='value(projectNumber)'" in agent


def test_a_lane_whose_ends_nobody_fires_is_advice(here: World, facts: FakeFacts, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    the_job(here, monkeypatch, annotations={"callbacks": "calls"})
    result = run(doctor.command)
    assert result.exit_code == 0
    assert "advice: lane default: callbacks: there is no lane 'calls', which fires its ends" in result.output


def test_soft_delete_alone_is_advice_and_ends_with_0(facts: FakeFacts, run: Run) -> None:
    facts.buckets = {"b": BucketFacts(604800.0)}
    result = run(doctor.command)
    assert result.exit_code == 0
    assert "advice: bucket b: soft-delete: it keeps deleted and replaced objects for 7 days" in result.output
    assert "gcloud storage buckets update gs://b --clear-soft-delete" in result.output


@pytest.mark.parametrize(
    ("prefixes", "hit"),
    [
        ((), "controller/, delayed/, open/, outcomes/, submissions/"),
        (("delayed/tasks-sub/",), "delayed/"),
        (("s",), "submissions/"),
        (("results/",), ""),
        (("controller/history/",), ""),
        (("controller/",), "controller/"),
    ],
)
def test_lifecycle_rules_that_delete_what_fanout_needs(facts: FakeFacts, run: Run, prefixes: tuple[str, ...], hit: str) -> None:
    facts.buckets = {"b": BucketFacts(0.0, False, (prefixes,))}
    found = not_fine(run(doctor.command, "--json"))
    assert [one["what"] for one in found] == ([f"a lifecycle rule deletes objects under {hit}"] if hit else [])


def test_what_is_missing_is_created_in_an_order_that_works(facts: FakeFacts, fixer: FakeFixer, run: Run) -> None:
    facts.topics, facts.subscriptions, facts.buckets = {}, {}, {}
    result = run(doctor.command, "--fix", "--yes")
    assert fixer.done == [
        ("create_topic", "dead-letters"),
        ("create_subscription", "dead-letters", "dead-letters", ""),
        ("create_topic", "tasks"),
        ("create_subscription", "tasks-sub", "tasks", "dead-letters"),
    ]
    assert "gcloud storage buckets create gs://b --project=p --location=us-central1" in result.output


def test_the_job_that_drains_dead_letters_is_examined(facts: FakeFacts, run: Run) -> None:
    (container,) = DEAD_LETTERS_JOB.containers
    wrong = replace(container, command=("python", "-m", "batch"), env={"BUCKET_NAME": "other", "DRAIN_AFTER_S": "soon"})
    facts.jobs["dead-letters"] = replace(DEAD_LETTERS_JOB, containers=(wrong,))
    result = run(doctor.command, "--json")
    assert result.exit_code == 1
    assert [(one["about"], one["verdict"], one["what"].split(":")[0]) for one in not_fine(result)] == [
        ("job dead-letters", "wrong", "command 'python -m batch'"),
        ("job dead-letters", "wrong", "env DRAIN_AFTER_S='soon'"),
    ]


def test_no_job_that_drains_dead_letters_is_advice(facts: FakeFacts, run: Run) -> None:
    facts.jobs.clear()
    result = run(doctor.command, "--json")
    (found,) = not_fine(result)
    assert (result.exit_code, found["about"], found["verdict"]) == (0, "job dead-letters", "advice")
    assert found["command"] == "fanout apply jobs.yaml"


def test_a_state_that_no_tick_can_read_is_told(facts: FakeFacts, here: World, run: Run) -> None:
    here.store.write(lane_state_object("default"), b"not a state")
    result = run(doctor.command, "--json")
    (found,) = not_fine(result)
    assert (result.exit_code, found["about"], found["check"], found["verdict"]) == (1, "lane default", "state", "wrong")
    assert "delete it to start afresh" in found["what"]


def test_a_listing_of_subscriptions_that_is_refused_is_told(
    facts: FakeFacts, here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> dict[str, SubscriptionFacts]:
        raise DependencyForbidden("cannot list the subscriptions: 403; it needs roles/pubsub.viewer")

    monkeypatch.setattr(here.sources, "subscriptions", refused)
    result = run(doctor.command, "--json")
    (found,) = not_fine(result)
    assert (result.exit_code, found["about"], found["verdict"]) == (1, "subscriptions", "unreadable")
    assert found["command"].endswith("--role=roles/pubsub.viewer")


def test_a_dead_letter_topic_that_nobody_reads_is_found(facts: FakeFacts, run: Run) -> None:
    facts.topics["dead-letters"] = []
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["check"], found["what"]) == ("dead-letters-kept", "topic dead-letters has no subscription")


@pytest.mark.parametrize(
    ("error", "verdict", "code"),
    [
        (NotServed("the local cloud has no such call"), "not_checked", 0),
        (DependencyForbidden("403"), "unreadable", 1),
        (DependencyUnavailable("503"), "unreadable", 1),
    ],
)
def test_what_was_not_checked_is_never_fine(facts: FakeFacts, run: Run, error: Exception, verdict: str, code: int) -> None:
    facts.errors = dict.fromkeys(("lacking", "holders", "scheduled_calls", "bucket", "subscription", "subscriptions_of"), error)
    result = run(doctor.command, "--json")
    assert {one["verdict"] for one in not_fine(result)} == {verdict}
    assert result.exit_code == code
    assert "fine" in run(doctor.command).output.splitlines()[-1]


def test_what_is_not_checked_for_one_reason_is_one_line(facts: FakeFacts, run: Run) -> None:
    facts.errors = {"holders": NotServed("the local cloud has no such call")}
    assert run(doctor.command).output.splitlines() == [
        "not checked: service-agent of topic dead-letters, subscription tasks-sub: the local cloud has no such call",
        "37 of 39 checks are fine, 2 not checked, which is not to say fine",
    ]
    facts.errors = {"lacking": NotServed("the local cloud has no such call")}
    (line, _) = run(doctor.command).output.splitlines()
    assert line.count("subscription tasks-sub") == 1


def test_what_is_not_checked_of_hundreds_is_one_short_line() -> None:
    found = [Finding(f"topic t{number:03}", "permissions", Verdict.NOT_CHECKED, "no such call") for number in range(300)]
    (line, _) = report(found, show_fine=False)
    assert line.endswith(", topic t009 and 290 more: no such call")


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "command"),
    [
        ({"enabled": False}, "ticks", "wrong", "resume fanout-tick"),
        ({"schedule": "0 * * * *", "url": "https://c.run.app/tick/?x=1"}, "ticks", "advice", "update http fanout-tick"),
        ({"url": "https://c.run.app/ticket"}, "ticks", "wrong", "create http fanout-tick"),
        ({"method": "GET"}, "target", "wrong", "--http-method=POST"),
        ({"url": "https://c.run.app/api/tick"}, "target", "wrong", "--uri=https://c.run.app/tick"),
        ({"url": "https://c.run.app/tick/defalt"}, "target", "wrong", "--uri=https://c.run.app/tick"),
        ({"url": "https://c.run.app/tick?lane=defalt"}, "target", "wrong", "--uri=https://c.run.app/tick"),
        ({"url": "https://old.run.app/tick"}, "target", "wrong", "--uri=https://c.run.app/tick"),
        ({"account": ""}, "target", "wrong", '--oidc-service-account-email="$SCHEDULER_ACCOUNT"'),
        ({"audience": ""}, "target", "wrong", "--oidc-token-audience=https://c.run.app"),
        ({"audience": "https://c.run.app/tick"}, "target", "wrong", "--oidc-token-audience=https://c.run.app"),
    ],
)
def test_the_scheduler_s_request_is_what_the_controller_would_answer(
    facts: FakeFacts, run: Run, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], check: str, verdict: str, command: str
) -> None:
    for name, value in (("CONTROLLER_URL", "https://c.run.app"), ("OIDC_AUDIENCE", "https://c.run.app"), ("OIDC_EMAILS", "a@b.c")):
        monkeypatch.setenv(name, value)
    assert not_fine(run(doctor.command, "--json")) == []
    facts.calls = [replace(TICK, **changes)]
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["about"], found["check"], found["verdict"]) == ("Cloud Scheduler", check, verdict)
    assert "gcloud scheduler jobs " in found["command"]
    assert command in found["command"]


def test_what_is_not_known_of_the_controller_is_not_held_against_the_scheduler(facts: FakeFacts, run: Run) -> None:
    facts.calls = [replace(TICK, url="https://other.example/tick/default/", audience="x")]
    assert not_fine(run(doctor.command, "--json")) == []
    facts.calls = [replace(TICK, account="", audience="")]
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["verdict"], found["what"]) == ("advice", "job fanout-tick sends no OIDC token")


def test_a_lane_that_no_job_of_the_scheduler_ticks_is_found(
    here: World, facts: FakeFacts, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [*here.runner.jobs(), job("bulk")]
    monkeypatch.setattr(here.runner, "jobs", lambda: both)
    facts.calls = [replace(TICK, url="https://c.run.app/tick/default")]
    wrong = [one["what"] for one in not_fine(run(doctor.command, "--json")) if one["about"] == "Cloud Scheduler"]
    assert wrong == ["no job ticks bulk, nor all lanes"]


def test_what_waits_is_told_with_the_command_that_shows_it(here: World, facts: FakeFacts, run: Run) -> None:
    traces = Bucket(here.store, here.clock)
    ids = [traces.new_id() for _ in range(3)]
    traces.letters(*(traces.letter(one) for one in ids[:2]))
    traces.delay(ids[2], here.clock.now() + 4000, "tasks-sub")
    here.backlog.by_name = {"dead-letters": Value(7, here.clock.now(), 5.0)}
    found = {one["check"]: one for one in not_fine(run(doctor.command, "--json"))}
    assert {one["verdict"] for one in found.values()} == {"advice"}
    assert {check: (one["about"], one["what"], one["command"]) for check, one in found.items()} == {
        "dead-tasks": ("lane default", "2 tasks are dead", "fanout dead ls --lane default"),
        "delayed-tasks": ("lane default", "1 task is delayed", "gcloud storage ls gs://b/delayed/tasks-sub/"),
        "dead-letters-drained": (
            "subscription dead-letters",
            "7 dead letters wait in it",
            "gcloud run jobs execute dead-letters --project=p --region=us-central1",
        ),
    }
    assert run(doctor.command).exit_code == 0


def test_a_backlog_that_cannot_be_read_is_wrong(here: World, facts: FakeFacts, run: Run) -> None:
    here.backlog.reading = Unknown("403 from Monitoring")
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["about"], "403 from Monitoring" in found["what"]) == ("Cloud Monitoring", True)
    assert "--role=roles/monitoring.viewer" in found["command"]


def test_a_job_that_cannot_be_a_lane(here: World, facts: FakeFacts, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    the_job(here, monkeypatch, annotations={"weight": "-4"})
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["about"], found["check"]) == ("job default", "annotations")


def test_no_lane_at_all_is_wrong(here: World, facts: FakeFacts, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.runner, "jobs", list)
    result = run(doctor.command)
    assert (result.exit_code, "fanout apply jobs.yaml" in result.output) == (1, True)


def test_a_fix_is_shown_before_it_is_asked_about(facts: FakeFacts, fixer: FakeFixer, run: Run) -> None:
    facts.subscriptions["tasks-sub"] = replace(GOOD, ack_deadline_s=10)
    result = run(doctor.command, "--fix", answer="n\n")
    assert (result.exit_code, fixer.done) == (1, [])
    assert "gcloud pubsub subscriptions update tasks-sub --project=p --ack-deadline=60" in result.output.split("do this?")[0]
    assert "fixed: subscription tasks-sub: ack-deadline" in run(doctor.command, "--fix", answer="y\n").output


def test_a_fix_that_fails_does_not_stop_the_others(facts: FakeFacts, fixer: FakeFixer, run: Run) -> None:
    facts.subscriptions["tasks-sub"] = replace(GOOD, ack_deadline_s=10, has_retry_policy=True)
    fixer.errors = [DependencyForbidden("cannot change subscription tasks-sub: 403")]
    result = run(doctor.command, "--fix", "--yes", "--json")
    assert result.exit_code == 1
    assert [(one["check"], one["error"]) for one in json.loads(result.stdout)["fixed"]] == [
        ("ack-deadline", "cannot change subscription tasks-sub: 403"),
        ("retry-policy", None),
    ]
    assert fixer.done == [("set_subscription", "tasks-sub", {"retry_policy": None})]


@pytest.mark.parametrize(
    ("message_filter", "verdict"), [("", "advice"), ('attributes.lane = "x"', "advice"), ("NOT attributes:delayed", "fine")]
)
def test_who_else_reads_a_lane_s_topic_hears_of_what_is_published_again(
    facts: FakeFacts, run: Run, message_filter: str, verdict: str
) -> None:
    facts.topics["tasks"] = ["projects/p/subscriptions/tasks-sub", "projects/p/subscriptions/audit"]
    facts.subscriptions["audit"] = replace(GOOD, message_filter=message_filter)
    findings = json.loads(run(doctor.command, "--json").stdout)["findings"]
    (found,) = [one for one in findings if one["check"] == "other-subscriptions"]
    assert (found["about"], found["verdict"]) == ("topic tasks", verdict)
    if verdict == "advice":
        assert "audit" in found["what"]
        assert "NOT attributes:delayed" in found["command"]


def test_a_lane_s_own_filter_must_let_through_what_is_published_again(facts: FakeFacts, run: Run) -> None:
    facts.subscriptions["tasks-sub"] = replace(GOOD, message_filter="NOT attributes:delayed")
    (found,) = not_fine(run(doctor.command, "--json"))
    assert (found["check"], found["verdict"], found["fixable"]) == ("filter", "wrong", False)
