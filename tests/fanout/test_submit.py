"""`fanout submit` and `fanout proof` with everything in memory, and once through the real clients against the local cloud."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import fanout.cloud
import fanout.submission.proof
import fanout.submission.submit
from batch.model.clock import SystemClock, iso
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyForbidden, DependencyUnavailable
from batch.model.names import outcome_object, writer_of
from batch.model.outcomes import Outcome, counted, to_line
from batch.services.objects import GoogleObjectStore
from batch.testing.objects import MemoryObjectStore
from batch.testing.pubsub import MemoryBroker
from controller.observe.jobs import JobInfo
from fanout.submission import following, outcomes
from fanout.submission.target import Target, target_of
from tests.controller.fakes import FakeSources, job, lane
from tests.support import Service

HANDLERS = "batch.handlers,tests.fanout.handlers"


class Cloud:
    """The bucket and the topic that the commands meet."""

    def __init__(self) -> None:
        self.store = MemoryObjectStore("bucket")
        self.topic = MemoryBroker(SystemClock()).topic("tasks")
        self.target = Target()

    @property
    def messages(self) -> list[Outgoing]:
        return [message for _, message in self.topic.published]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self.messages]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    one = Cloud()
    monkeypatch.setattr(fanout.cloud, "open_store", lambda _project, _bucket: nullcontext(one.store))
    monkeypatch.setattr(fanout.cloud, "open_topic", lambda _project, _name: nullcontext(one.topic))
    monkeypatch.setattr(fanout.submission.submit, "look_at", lambda *_arguments: one.target)
    return one


def submit(*arguments: str, text: str | bytes | None = None, bucket: str | None = "bucket") -> Result:
    environment = {"GOOGLE_CLOUD_PROJECT": "p", "TOPIC_NAME": "tasks", "HANDLERS": HANDLERS, "BUCKET_NAME": bucket}
    return CliRunner().invoke(fanout.submission.submit.command, arguments, input=text, env=environment)


def prove(*arguments: str) -> Result:
    return CliRunner().invoke(fanout.submission.proof.command, arguments, env={"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "bucket"})


def test_one_task(cloud: Cloud) -> None:
    result = submit("--task-type", "work", "--field", "number=3", "--field", "name=a=b", "--field", 'text="5"', bucket=None)
    assert (result.exit_code, result.stderr) == (0, "")
    (body,) = cloud.bodies
    assert {name: body[name] for name in ("task_type", "number", "name", "text")} == {
        "task_type": "work",
        "number": 3,
        "name": "a=b",
        "text": "5",
    }
    assert result.stdout == f"task {body['task_id']} submitted to tasks\n"


def test_one_task_with_a_key_is_the_same_task(cloud: Cloud) -> None:
    results = [submit("--task-type", "work", "--idempotency-key", "k", "--json") for _ in range(2)]
    first, second = (json.loads(result.stdout) for result in results)
    assert first["task_id"] == second["task_id"]
    assert first["message_id"] != second["message_id"]


def test_another_task_under_a_key_is_refused_where_a_bucket_is_named(cloud: Cloud) -> None:
    assert submit("--task-type", "work", "--field", "a=1", "--idempotency-key", "k").exit_code == 0
    refused = submit("--task-type", "work", "--field", "a=2", "--idempotency-key", "k")
    assert (refused.exit_code, "idempotency key 'k' was used first at" in refused.stderr) == (1, True)
    assert submit("--task-type", "work", "--field", "a=2", "--idempotency-key", "k", bucket=None).exit_code == 0
    assert len(cloud.bodies) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--task-type", "wrok"], "did you mean 'work'"),
        (["--task-type", "file_processing", "--field", "filename=../a"], "'..'"),
        (["--task-type", "work", "--field", "task_id=1"], "task_id"),
    ],
)
def test_a_refused_task_ends_with_1(cloud: Cloud, arguments: list[str], text: str) -> None:
    result = submit(*arguments)
    assert (result.exit_code, cloud.messages) == (1, [])
    assert text in result.stderr


def test_tasks_that_would_be_lost_are_refused_unless_somebody_insists(cloud: Cloud) -> None:
    cloud.target = Target(lost=("subscription tasks-sub: it does not exist",), told=("lane default is paused",))
    refused = submit("--task-type", "work")
    assert (refused.exit_code, cloud.messages) == (1, [])
    assert refused.stderr.splitlines() == [
        "warning: lane default is paused",
        "Error: subscription tasks-sub: it does not exist; nothing was submitted, --anyway submits all the same",
    ]
    assert submit("--task-type", "work", "--anyway").exit_code == 0
    assert len(cloud.messages) == 1


def test_what_only_makes_tasks_wait_is_a_warning(cloud: Cloud) -> None:
    cloud.target = Target(told=("lane default is paused",))
    result = submit("--task-type", "work", "--json")
    assert (result.exit_code, result.stderr) == (0, "warning: lane default is paused\n")
    assert json.loads(result.stdout)["status"] == "submitted"


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"max_wait_s": 0.0}, "starts workers for these at the first tick that knows of them: the gauge shows them up to 3 min late\n"),
        (
            {"max_wait_s": 600.0},
            "; a few may wait for more, until 1970-01-01T00:10Z at the latest (fanout/max-wait 10 min); `fanout tick default --now`",
        ),
        ({"max_wait_s": 60.0}, "until 1970-01-01T00:04Z at the latest (fanout/max-wait 1 min)"),
    ],
    ids=["never waits", "waits", "less than the gauge is late"],
)
def test_when_a_lane_starts_is_told_after_the_submission(
    cloud: Cloud, policy: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemClock, "now", lambda _clock: -1.0)
    cloud.target = Target(lane=lane(min_backlog=9, **policy))
    for given in (["--task-type", "work"], ["--json", "-"]):
        result = submit(*given, text='{"task_type": "work"}')
        assert result.exit_code == 0
        assert result.stderr.startswith("lane default starts workers")
        assert told in result.stderr
        assert "starts workers" not in result.stdout
    assert submit("--task-type", "work", "--anyway").stderr == "", "nobody looked"


@pytest.mark.parametrize(
    ("changes", "lost", "told"),
    [
        ({}, "", ""),
        ({"topic": ""}, "its topic was deleted", ""),
        ({"is_detached": True}, "it was detached from its topic", ""),
        ({"topic": "other"}, "it is of topic other, the lane's topic is tasks", ""),
        ({"push_endpoint": "https://x.example"}, "it pushes to https://x.example", ""),
        ({"is_ordered": True}, "", ""),
    ],
)
def test_what_is_seen_of_a_lane_s_subscription(changes: dict[str, Any], lost: str, told: str) -> None:
    jobs, sources = [job()], FakeSources([job()])
    sources.change("tasks-sub", **changes)
    found = target_of("default", "tasks", jobs, sources)
    assert (lost in "".join(found.lost), bool(found.lost), found.told) == (True, bool(lost), ())


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ([], ""),
        ([job("bulk")], "no job drains lane default: its tasks wait until `fanout apply jobs.yaml`"),
        ([job(paused="true")], "lane default is paused: its tasks wait until `fanout resume default`"),
        ([job(topic="others")], "the topic of lane default is others, these go to topic tasks"),
        ([replace(job(), parallelism=3)], "nothing is launched for lane default: job default: spec.template.spec.parallelism=3"),
        ([job(), job("bulk", subscription="tasks-sub")], "(job default: subscription tasks-sub is also drained by projects/p/"),
        ([job(weight="-4")], "no job drains lane default"),
        ([replace(job(), labels={})], "labels[fanout-lane] is not set"),
    ],
)
def test_what_is_seen_of_a_lane_s_job(jobs: list[JobInfo], told: str) -> None:
    found = target_of("default", "tasks", jobs, FakeSources([job()]))
    assert (found.lost, told in "".join(found.told), bool(found.told)) == ((), True, bool(told))
    assert found.lane is None, "nothing is said of a start that will not come, or not be this lane's"


def test_a_topic_without_a_subscription_loses_tasks_and_who_may_not_look_submits() -> None:
    sources = FakeSources([job()])
    del sources.found["tasks-sub"]
    assert target_of("default", "tasks", [], sources).lost == (
        "topic tasks has no subscription: what is published to it is lost; `fanout apply jobs.yaml --create-missing`",
    )
    (lost,) = target_of("default", "tasks", [job()], sources).lost
    assert "subscription tasks-sub: it does not exist" in lost
    assert target_of("default", "elsewhere", [], sources) == Target()  # a topic that does not exist is told by the publish
    sources.errors = dict.fromkeys(("subscription", "subscriptions_of"), DependencyForbidden("403"))
    assert target_of("default", "tasks", [], sources) == Target()
    seen = target_of("default", "tasks", [job()], sources)
    assert (seen.lost, seen.told) == ((), ())


def test_a_lane_that_takes_no_envelope_gets_none() -> None:
    jobs = [job(accept="raw,gcs-notification", default_type="note")]
    (lost,) = target_of("default", "tasks", jobs, FakeSources(jobs)).lost
    assert lost.startswith("lane default takes raw, gcs-notification and no envelope, so its workers would not read what Fanout publishes")
    jobs = [job(accept="raw,envelope", default_type="note"), job("bulk", accept="raw", default_type="note")]
    found = target_of("default", "tasks", jobs, FakeSources(jobs))
    assert found.lost == ()
    assert "topic tasks is also that of another lane: lane bulk takes raw and no envelope" in "".join(found.told)


def test_types_of_others_need_a_word(cloud: Cloud) -> None:
    assert submit("--task-type", "elsewhere", "--any-type").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-", "--task-type", "work"],
        ["--files"],
        ["--dir", ".", "--from-prefix", "gs://bucket/input/"],
        ["--task-type", "work", "--field", "nonsense"],
        ["-", "--idempotency-key", "k"],
        ["-", "--field", "a=1"],
        ["no-such-file"],
        ["--from-prefix", "gs://another/input/"],
        ["--from-prefix", "gs://bucket/processed/"],
        ["--task-type", "work", "--handlers", "no.such.module"],
    ],
)
def test_wrong_usage_ends_with_2(cloud: Cloud, arguments: list[str]) -> None:
    result = submit(*arguments)
    assert result.exit_code == 2, result.output
    assert cloud.messages == []


def test_lines_without_a_bucket_are_wrong_usage(cloud: Cloud) -> None:
    assert submit("-", text="{}", bucket=None).exit_code == 2


def test_lines_from_standard_input_and_the_proof(cloud: Cloud) -> None:
    lines = "\n".join(json.dumps({"task_type": "work", "number": number}) for number in range(150))
    result = submit("-", "--json", text=f"\n{lines}\n\n")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["accepted_count"], report["refused_count"], report["closed"]) == (150, 0, True)
    assert [body["number"] for body in cloud.bodies] == list(range(150))
    submission_id = report["submission_id"]
    waiting = prove(submission_id)
    assert waiting.exit_code == 1
    assert "not finished, 150 tasks have no outcome yet" in waiting.stdout
    assert "and 130 more missing" in waiting.stdout
    finish(cloud, submission_id)
    done = prove(submission_id)
    assert (done.exit_code, "complete, every task is accounted for" in done.stdout) == (0, True)
    whole = json.loads(prove(submission_id, "--json").stdout)
    assert (whole["complete"], whole["submitted_count"], whole["succeeded_count"], whole["missing_count"]) == (True, 150, 150, 0)


def finish(cloud: Cloud, submission_id: str) -> None:
    lines = [to_line(Outcome(body["task_id"], "work", "succeeded", iso(1.0), execution="run")) for body in cloud.bodies]
    cloud.store.write(outcome_object(submission_id, 0.0, writer_of("run", 0, 0), 0), b"".join(lines))


def test_refused_lines_are_named_by_number_and_the_others_go(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "tasks.ndjson"
    path.write_bytes(b'{"task_type": "work"}\nnonsense\n\n{"task_type": "wrok"}\n{"number": 1}\n{"task_type": "work"}\n')
    result = submit(str(path))
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["line 2", "line 4", "line 5"]
    assert "2 tasks submitted to tasks, 3 refused" in result.stdout
    assert len(cloud.messages) == 2


def test_a_broker_that_fails_is_reported(cloud: Cloud) -> None:
    cloud.topic.fail_next("publish", DependencyUnavailable("the broker is away"))
    result = submit("-", "--json", text='{"task_type": "work"}\n')
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["closed"], report["accepted_count"], report["uncertain_count"]) == (False, 0, 1)
    assert "the broker is away" in result.stderr
    cloud.topic.fail_next("publish", DependencyUnavailable("the broker is away"))
    single = submit("--task-type", "work")
    assert (single.exit_code, "the broker is away" in single.stderr) == (1, True)


def test_files_are_uploaded_before_their_tasks(cloud: Cloud, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:02}.csv" for number in range(40)]
    for path in paths:
        path.write_text(path.name)
    result = submit("--files", *map(str, paths), "--field", "operation=checksum")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [body["filename"] for body in cloud.bodies] == [path.name for path in paths]
    assert {body["operation"] for body in cloud.bodies} == {"checksum"}
    assert all(cloud.store.read(f"input/{path.name}") == path.name.encode() for path in paths)


def test_files_of_one_name_and_a_failing_bucket(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for path in ("a.csv", "b/a.csv"):
        (tmp_path / path).write_text(path)
    result = submit("--files", str(tmp_path / "a.csv"), str(tmp_path / "b/a.csv"))
    assert (result.exit_code, len(cloud.messages)) == (1, 1)
    assert "file 2: " in result.stderr
    assert "--dir" in result.stderr
    cloud.store.fail_next("write", DependencyUnavailable("the bucket is away"))
    failed = submit("--dir", str(tmp_path))
    assert (failed.exit_code, "the bucket is away" in failed.stderr) == (1, True)


def test_a_folder_keeps_its_names(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a.csv").write_text("1")
    (tmp_path / "b.csv").write_text("2")
    assert submit("--dir", str(tmp_path)).exit_code == 0
    assert [body["filename"] for body in cloud.bodies] == ["b.csv", "deep/er/a.csv"]
    assert cloud.store.read("input/deep/er/a.csv") == b"1"


@pytest.mark.parametrize(("prefix", "names"), [("", ["a.csv", "x/b.csv"]), ("x/", ["x/b.csv"])])
def test_what_lies_in_the_bucket(cloud: Cloud, prefix: str, names: list[str]) -> None:
    for name in ("input/", "input/a.csv", "input/x/", "input/x/b.csv", "processed/c.csv"):
        cloud.store.write(name, b"")
    assert submit("--from-prefix", f"gs://bucket/input/{prefix}", bucket=None).exit_code == 0
    assert [body["filename"] for body in cloud.bodies] == names


def test_an_unknown_submission(cloud: Cloud) -> None:
    result = prove("s-nothing")
    assert result.exit_code == 1
    assert "there is no submission s-nothing in bucket bucket" in result.stderr


def test_dead_tasks_are_accounted_for_with_their_reason(cloud: Cloud) -> None:
    report = json.loads(submit("-", "--json", text='{"task_type": "work"}\n' * 120).stdout)
    finish(cloud, report["submission_id"])
    name = outcome_object(report["submission_id"], 0.0, writer_of("run", 0, 0), 0)
    lines = cloud.store.read(name).replace(b'"outcome":"succeeded"', b'"outcome":"dead","reason":"no such column"', 1)
    cloud.store.write(name, lines)
    result = prove(report["submission_id"])
    assert result.exit_code == 0
    assert "1 dead" in result.stdout
    assert "no such column" in result.stdout


def test_through_the_real_clients(local_pubsub: Service, local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
    from google.cloud.storage import Client

    Client(project=project).create_bucket(f"b-{project}")
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        publisher.create_topic(name=f"projects/{project}/topics/tasks")
        path = f"projects/{project}/subscriptions/tasks"
        subscriber.create_subscription(name=path, topic=f"projects/{project}/topics/tasks")
        common = ["--project", project, "--bucket", f"b-{project}"]
        lines = '{"task_type": "work"}\n' * 1500
        result = submit("-", "--json", *common, text=lines)
        assert result.exit_code == 0, result.output
        submission_id = json.loads(result.stdout)["submission_id"]
        task_ids: list[str] = []
        while len(task_ids) < 1500:
            found = subscriber.pull(subscription=path, max_messages=1000, timeout=10).received_messages
            task_ids += [one.message.attributes["task_id"] for one in found]
            subscriber.acknowledge(subscription=path, ack_ids=[one.ack_id for one in found])
            assert {one.message.attributes["shard"] for one in found} == {submission_id}
    status = CliRunner().invoke(following.status, [submission_id, "--json", *common])
    assert (json.loads(status.stdout)["state"], json.loads(status.stdout)["pending_count"]) == ("running", 1500)
    whole = json.loads(prove(submission_id, "--json", *common).stdout)
    assert (whole["submitted_count"], whole["missing_count"], whole["closed"], whole["problems"]) == (1500, 1500, True, [])
    written = [to_line(Outcome(task_id, "work", "succeeded", iso(SystemClock().now()), execution="x")) for task_id in task_ids]
    with closing(GoogleObjectStore(f"b-{project}", project=project)) as store:
        name = outcome_object(submission_id, SystemClock().now(), writer_of("x", 0, 0), 1)
        store.write(name, b"".join(written), metadata=counted(submission_id, [("succeeded", submission_id)] * 1500))
    for _ in range(2):  # the second time the proof is stored
        waited = CliRunner().invoke(following.wait, [submission_id, "--json", *common])
        assert (waited.exit_code, json.loads(waited.stdout)["state"]) == (0, "complete"), waited.output
    assert json.loads(prove(submission_id, "--json", *common).stdout)["stored_at"]
    assert CliRunner().invoke(outcomes.command, [submission_id, "--final", *common]).stdout_bytes == b"".join(written)
