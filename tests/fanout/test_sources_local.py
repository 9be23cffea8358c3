"""What is missing is told where people look, with Google's own clients: somebody deletes, detaches and edits what lanes need, and `plan`,
`tick`, `lanes`, `submit` and doctor say it, each with what mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from google.api_core.exceptions import Forbidden

from batch.model.errors import DependencyForbidden, DependencyMissing
from controller.observe.deployed import DeployedJobs
from controller.observe.job_documents import Document
from controller.observe.sources import GoogleSources, SourceReader, translated
from fanout import doctor, lanes, tick
from fanout.submission import submit
from tests.controller.fakes import FakeSources, job
from tests.fanout.test_apply import applied, cloud, jobs_file
from tests.support import Service

__all__ = ["cloud", "jobs_file"]
ASKED = ("urgent", "default", "bulk")


def run(command: click.Command, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def submitted(lane: str) -> Result:
    return run(submit.command, "--lane", lane, "--task-type", "x", "--any-type")


@pytest.fixture
def hands(cloud: str, jobs_file: Path, local_pubsub: Service, local_run: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hands]:
    """A project whose lanes were set up well and ticked once, and somebody who has owner's rights on it."""
    monkeypatch.setenv("CLOUD_MONITORING_EMULATOR_HOST", local_pubsub.grpc)
    assert applied(str(jobs_file), "--yes", "--create-missing").exit_code == 0
    assert run(tick.tick).exit_code == 0
    found = Hands(cloud, local_run.http)
    yield found
    found.close()


class Hands:
    def __init__(self, project: str, run_url: str) -> None:
        import requests
        from google.cloud import pubsub_v1

        self.project, self._run_url, self._session = project, run_url, requests.Session()
        self._deployed = DeployedJobs(project, "us-central1", emulator_url=run_url)
        self.subscriber, self.publisher = pubsub_v1.SubscriberClient(), pubsub_v1.PublisherClient()

    def subscription(self, name: str) -> str:
        return f"projects/{self.project}/subscriptions/{name}"

    def topic(self, name: str) -> str:
        return f"projects/{self.project}/topics/{name}"

    def edit(self, job: str, edit: Callable[[Document], None]) -> None:
        self._deployed.change(job, edit, f"change job {job}")

    def delete_job(self, name: str) -> None:
        path = f"/v2/projects/{self.project}/locations/us-central1/jobs/{name}"
        assert self._session.delete(f"{self._run_url}{path}", timeout=60).status_code == 200

    def close(self) -> None:
        self.subscriber.close()
        self.publisher.transport.close()
        self._session.close()


def test_what_is_missing_is_told_by_every_command(hands: Hands) -> None:
    assert all(submitted(name).exit_code == 0 for name in ASKED)
    hands.publisher.detach_subscription(request={"subscription": hands.subscription("default")})
    hands.subscriber.delete_subscription(subscription=hands.subscription("bulk"))
    hands.delete_job("urgent")
    told = {
        "default": "subscription default: it was detached from its topic: tasks that are submitted to the lane never come to it",
        "bulk": "subscription bulk: it does not exist: what is published to a topic without a subscription is lost",
        "urgent": "lane urgent has no job any more: it was deleted, or lost its label fanout-lane (looked for in region us-central1:",
    }
    for command in (tick.plan, tick.tick):
        result = run(command)
        assert result.exit_code == 1
        assert [text for text in told.values() if text not in result.output] == []
        assert "launched" not in result.output.replace("nothing was launched", "")
    shown = json.loads(run(lanes.command, "--json").output)
    assert [one["job"] for one in shown["refused"]] == ["urgent"]
    for name in ("default", "bulk"):
        refused = submitted(name)
        assert (refused.exit_code, told[name] in refused.stderr) == (1, True)
    warned = submitted("urgent")
    assert (warned.exit_code, "warning: no job drains lane urgent" in warned.stderr) == (0, True)
    findings = {
        one["about"]: one["what"] for one in json.loads(run(doctor.command, "--json").stdout)["findings"] if one["verdict"] == "wrong"
    }
    assert findings["job urgent"].startswith(told["urgent"])
    assert findings["subscription default"] == "it was detached from its topic"
    assert "does not exist" in findings["subscription bulk"]
    hands.subscriber.delete_subscription(subscription=hands.subscription("urgent"))
    assert "no job any more" not in run(tick.plan).output


def test_a_topic_that_is_gone_and_one_of_somebody_else(hands: Hands) -> None:
    hands.publisher.delete_topic(topic=hands.topic("default"))
    hands.publisher.create_topic(name=hands.topic("others"))
    for name, settings in (("bulk", {}), ("urgent", {"enable_message_ordering": True})):
        hands.subscriber.delete_subscription(subscription=hands.subscription(name))
        topic = hands.topic("others" if name == "bulk" else name)
        hands.subscriber.create_subscription(request={"name": hands.subscription(name), "topic": topic, **settings})
    hands.subscriber.create_subscription(name=hands.subscription("audit"), topic=hands.topic("urgent"))
    lines = run(tick.plan).output
    assert "on hold: subscription default: its topic was deleted" in lines
    assert "on hold: subscription bulk: it is of topic others, the lane's topic is bulk" in lines
    assert "on hold: subscription urgent: it has message ordering enabled" in lines
    assert "note: topic urgent has other subscriptions, which get again what is published again: audit" in lines
    assert "its topic was deleted" in submitted("default").stderr
    assert "it is of topic others" in submitted("bulk").stderr
    assert submitted("urgent").exit_code == 0


def test_two_lanes_on_one_subscription_are_refused_everywhere(hands: Hands) -> None:
    hands.edit("bulk", lambda job: job["metadata"]["annotations"].update({"fanout/subscription": "default"}))
    for command in (tick.plan, tick.tick, lanes.command):
        result = run(command)
        assert result.exit_code == 1
        assert "subscription default is also drained by" in result.output
    assert "subscription default is also drained by" in submitted("default").stderr


def test_a_worker_that_drains_another_project_is_told_everywhere(hands: Hands) -> None:
    def elsewhere(job: Document) -> None:
        (container,) = job["spec"]["template"]["spec"]["template"]["spec"]["containers"]
        container["env"] = [one for one in container["env"] if one["name"] != "GOOGLE_CLOUD_PROJECT"]
        container["env"].append({"name": "GOOGLE_CLOUD_PROJECT", "value": "others"})

    hands.edit("bulk", elsewhere)
    for output in (run(tick.plan).output, run(tick.tick, "bulk").output, submitted("bulk").stderr):
        assert f"env GOOGLE_CLOUD_PROJECT='others' differs from the controller's project='{hands.project}'" in output


@pytest.fixture(params=["memory", "google"])
def reader(request: pytest.FixtureRequest) -> Iterator[SourceReader]:
    """Of a project with the lanes `default` and `bulk`, and a topic without a subscription."""
    if request.param == "memory":
        yield FakeSources([job(subscription="default", topic="default"), job("bulk", subscription="bulk", topic="bulk")])
        return
    hands: Hands = request.getfixturevalue("hands")
    found = GoogleSources(hands.project)
    yield found
    found.close()


def test_what_every_reader_of_sources_says(reader: SourceReader) -> None:
    listed = reader.subscriptions()
    assert {"default", "bulk"} <= set(listed)
    assert {name: reader.subscription(name) for name in listed} == listed
    assert (listed["bulk"].topic, listed["bulk"].ack_deadline_s, listed["bulk"].expires_after_s) == ("bulk", 60, None)
    assert [one.rsplit("/", 1)[-1] for one in reader.subscriptions_of("bulk")] == ["bulk"]
    for ask in (reader.subscription, reader.subscriptions_of):
        with pytest.raises(DependencyMissing):
            ask("nowhere")


def test_who_may_not_look_is_told_which_role_it_takes() -> None:
    with (
        pytest.raises(DependencyForbidden, match=r"it needs the custom role fanoutController, or roles/pubsub\.viewer"),
        translated("list the subscriptions"),
    ):
        raise Forbidden("no")
