"""The independent checker against the local cloud: silent about a good drain, and loud about each thing that can be wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest
from google.cloud.storage import Client
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.handling.results import write_output
from batch.model.clock import SystemClock, iso
from batch.model.message import Task
from batch.model.names import (
    manifest_object,
    outcome_object,
    processed_object,
    progress_object,
    result_data_object,
    result_object,
    writer_of,
)
from batch.model.outcomes import Outcome, to_line
from batch.model.progress import Progress, to_metadata
from batch.model.shares import share
from batch.services.objects import GoogleObjectStore
from batch.services.ports import ObjectStore
from batch.testing import MemoryBroker
from tests import checker
from tests.support import Service


@dataclass
class Drain:
    """A finished drain: file tasks, data tasks and a dead one, by two workers of one execution."""

    store: ObjectStore
    arguments: list[str]
    submission_id: str
    tasks: list[tuple[str, str]]

    def of_type(self, task_type: str) -> list[str]:
        return [task_id for task_id, its_type in self.tasks if its_type == task_type]

    def check(self) -> list[str]:
        """The lines of what failed; none says that all passed."""
        said: list[str] = []
        code = checker.main(self.arguments, said.append)
        failed = [line for line in said if line.startswith("FAIL")]
        assert code == (1 if failed else 0)
        return failed


def outputs(store: ObjectStore, number: int, task_id: str, task_type: str) -> Outcome:
    """What a worker leaves for one task."""
    at = iso(1_767_225_600.0 + number)
    task = Task(task_id, task_type, at)
    if task_type == "file_processing":
        output = processed_object(f"{number}.csv")
        write_output(store, task, output, b"{}", "application/json")
    elif task_type == "data_transformation":
        data = write_output(store, task, result_data_object(task_id, 1, "csv"), b"a,b\n", "text/csv")
        body = {"task_id": task_id, "data": {"object": data.name, "generation": data.generation, "size": 4}}
        output = result_object(task_id)
        write_output(store, task, output, json.dumps(body).encode(), "application/json")
    else:
        return Outcome(task_id, task_type, "dead", at, execution="run", index=number % 2, reason="no such type")
    return Outcome(task_id, task_type, "succeeded", at, execution="run", index=number % 2, output=output)


@pytest.fixture
def drain(local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drain]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    client = Client(project=project)
    client.create_bucket(f"b-{project}")
    client.close()
    store = GoogleObjectStore(f"b-{project}", project=project)
    topic = MemoryBroker(SystemClock()).topic("tasks")
    submission = Submission(lane="default", topic=topic, store=store, clock=SystemClock(), rng=random.Random(project))
    submission.add(NewTask(kind, {}) for kind in ("file_processing", "data_transformation", "nonsense", "file_processing"))
    submission.close()
    sent = [message.attributes for _, message in topic.published]
    tasks = [(one["task_id"], one["task_type"]) for one in sent]
    outcomes = [outputs(store, number, *task) for number, task in enumerate(tasks)]
    store.write(outcome_object(sent[0]["shard"], 0.0, writer_of("run", 0, 0), 0), b"".join(map(to_line, outcomes)))
    for index in range(2):
        part = share(5, 2, index)
        counts = to_metadata(Progress(share=part, started_at=0.0, updated_at=1.0, taken=2, acked=2, exit_reason="drained"))
        store.write(progress_object("run", index, 0), b"", metadata=counts)
    arguments = ["--storage", local_storage.http, "--bucket", store.bucket_name, "--submission", submission.submission_id]
    yield Drain(store, [*arguments, "--assigned", "run=5"], submission.submission_id, tasks)
    store.close()


def test_a_good_drain_passes(drain: Drain) -> None:
    assert drain.check() == []


def _no_output(drain: Drain) -> None:
    drain.store.delete(processed_object("0.csv"))


def _stolen_output(drain: Drain) -> None:
    drain.store.write(processed_object("0.csv"), b"{}", metadata={"task_id": "somebody-else"})


def _touched_output(drain: Drain) -> None:
    drain.store.patch_metadata(processed_object("0.csv"), {"again": "yes"})


def _no_result(drain: Drain) -> None:
    drain.store.delete(result_object(drain.of_type("data_transformation")[0]))


def _other_data(drain: Drain) -> None:
    drain.store.write(result_data_object(drain.of_type("data_transformation")[0], 1, "csv"), b"c,d\n")


def _surplus_data(drain: Drain) -> None:
    drain.store.write(result_data_object(drain.of_type("data_transformation")[0], 2, "csv"), b"c,d\n")


def _lost_task(drain: Drain) -> None:
    name = manifest_object(drain.submission_id, 0)
    line = {"task_id": "lost", "task_type": "file_processing", "shard": "rolling-default-2026010100"}
    drain.store.write(name, drain.store.read(name) + json.dumps(line).encode() + b"\n")


def _not_closed(drain: Drain) -> None:
    drain.store.delete(f"submissions/{drain.submission_id}/submission.json")


def _greedy_worker(drain: Drain) -> None:
    drain.store.patch_metadata(progress_object("run", 0, 0), {"taken": "4"})


def _wrong_share(drain: Drain) -> None:
    drain.store.patch_metadata(progress_object("run", 1, 0), {"share": "3"})


def _invented_ack(drain: Drain) -> None:
    drain.store.patch_metadata(progress_object("run", 1, 0), {"returned": "1"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_no_output, "every succeeded file task has its output"),
        (_stolen_output, "which did not succeed in writing it"),
        (_touched_output, "has metageneration 2"),
        (_no_result, "every succeeded data task has its result"),
        (_other_data, "which is not there"),
        (_surplus_data, "is not named"),
        (_lost_task, "lost has no outcome"),
        (_not_closed, "is not closed"),
        (_greedy_worker, "no worker took more than its share"),
        (_wrong_share, "sum to 6, assigned were 5"),
        (_invented_ack, "acknowledged what it had not taken"),
    ],
)
def test_each_damage_is_found(drain: Drain, damage: Callable[[Drain], None], said: str) -> None:
    damage(drain)
    failed = drain.check()
    assert any(said in line for line in failed), failed


def test_the_broker_is_looked_at(drain: Drain, local_pubsub: Service, project: str) -> None:
    channel = grpc.insecure_channel(local_pubsub.grpc)
    publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
    subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    for name in ("tasks", "dead-letters"):
        publisher.create_topic(name=f"projects/{project}/topics/{name}")
        subscriber.create_subscription(name=f"projects/{project}/subscriptions/{name}", topic=f"projects/{project}/topics/{name}")
    drain.arguments += ["--pubsub", local_pubsub.grpc, "--project", project, "--subscription", "tasks"]
    drain.arguments += ["--dead-letter-subscription", "dead-letters"]
    (dead,) = drain.of_type("nonsense")
    assert [line for line in drain.check() if "without a dead letter" in line and dead in line]
    letter = {"data": b"{}", "attributes": {"task_id": dead, "dead_reason": "no such type"}}
    publisher.publish(topic=f"projects/{project}/topics/dead-letters", messages=[letter])
    assert drain.check() == []
    assert drain.check() == [], "what was looked at is given back"
    publisher.publish(topic=f"projects/{project}/topics/tasks", messages=[{"data": b"{}", "attributes": {"task_id": "left"}}])
    assert [line for line in drain.check() if "a message of task left is left" in line]
    channel.close()
