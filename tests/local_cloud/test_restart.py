"""Services that are frozen, killed and restarted while clients use them: nothing that was confirmed is lost."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import pubsub_v1, storage
from google.pubsub_v1 import PublisherClient
from requests import RequestException

from local_cloud.addresses import Addresses
from local_cloud.supervisor.child import ServiceFailed
from local_cloud.supervisor.http_call import call
from local_cloud.supervisor.supervisor import LocalCloud, Options
from local_cloud.supervisor.workers import running_workers
from tests.support import clean_environment, pulled_at_once, wait_until

pytestmark = pytest.mark.slow

QUICK = Options(sample_period_s=0, visibility_lag_s=0)
TOPIC, NAME = "projects/local/topics/tasks", "projects/local/subscriptions/workers"
JOBS = "/apis/run.googleapis.com/v1/namespaces/local/jobs"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), QUICK, clean_environment()) as cloud:
        yield cloud


@pytest.fixture(autouse=True)
def _nothing_died(cloud: LocalCloud) -> Iterator[None]:
    addresses = cloud.addresses
    yield
    assert set(cloud.states.values()) == {"runs"}
    assert not cloud.died.is_set()
    assert cloud.addresses == addresses
    cloud.check()


class Traffic:
    """Threads that repeat a step until the end; a step that fails because the service is away is simply done again."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._broken: list[BaseException] = []

    def add(self, step: Callable[[], None]) -> None:
        def run() -> None:
            while not self._ended.is_set():
                try:
                    step()
                except (GoogleAPICallError, RequestException, ServiceFailed):
                    self._ended.wait(0.01)
                except BaseException as error:  # noqa: BLE001 - it is raised again in the test's own thread
                    self._broken.append(error)
                    return

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        for error in self._broken:
            raise error


def kill_in_the_middle(cloud: LocalCloud, service: str, progress: Callable[[], int], step: int) -> None:
    """Twice: let `step` things be done, kill, restart; and in the end let `step` more be done."""

    def go_on() -> None:
        before = progress()
        wait_until(lambda: progress() >= before + step, 60, f"{step} things are done by {service}")

    for _ in range(2):
        go_on()
        cloud.kill(service)
        cloud.restart(service)
    go_on()


class Queue:
    """Clients of Pub/Sub that do not try again by themselves."""

    def __init__(self, addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", addresses.pubsub)
        outer = pubsub_v1.PublisherClient()
        self.publisher: Any = PublisherClient(transport=outer.transport)
        self.subscriber: Any = pubsub_v1.SubscriberClient()
        self.confirmed: set[bytes] = set()
        self.seen: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.delivered_after_ack: set[bytes] = set()
        self._number = 0

    def publish(self) -> None:
        bodies = [b"%d" % number for number in range(self._number, self._number + 10)]
        self._number += 10
        self.publisher.publish(topic=TOPIC, messages=[{"data": body} for body in bodies], retry=None, timeout=60)
        self.confirmed.update(bodies)

    def work(self) -> None:
        request = {"subscription": NAME, "max_messages": 7, "return_immediately": True}
        received = self.subscriber.pull(request=request, retry=None, timeout=5).received_messages
        bodies = {one.message.data for one in received}
        self.seen |= bodies
        self.delivered_after_ack |= bodies & self.acknowledged
        if received:
            self.subscriber.acknowledge(subscription=NAME, ack_ids=[one.ack_id for one in received], retry=None, timeout=60)
            self.acknowledged |= bodies

    def close(self) -> None:
        self.publisher.transport.close()
        self.subscriber.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The return_immediately flag is deprecated:DeprecationWarning")
def test_pubsub_loses_no_message_and_no_acknowledgement(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(cloud.addresses, monkeypatch)
    queue.publisher.create_topic(name=TOPIC)
    queue.subscriber.create_subscription(name=NAME, topic=TOPIC, ack_deadline_seconds=600)
    traffic = Traffic()
    traffic.add(queue.publish)
    traffic.add(queue.work)
    try:
        kill_in_the_middle(cloud, "pubsub", lambda: min(len(queue.confirmed), len(queue.acknowledged)), 200)
    finally:
        traffic.end()
    cloud.kill("pubsub")
    cloud.restart("pubsub")
    while queue.confirmed - queue.seen:
        before = len(queue.seen)
        queue.work()
        assert len(queue.seen) > before, f"{len(queue.confirmed - queue.seen)} confirmed messages are gone"
    assert not queue.delivered_after_ack
    queue.close()


def test_storage_loses_no_object(cloud: LocalCloud) -> None:
    client = storage.Client("local", AnonymousCredentials(), client_options={"api_endpoint": cloud.addresses.storage})
    bucket = client.create_bucket("kept")
    confirmed: dict[str, int] = {}

    def write(number: int = 0) -> Callable[[], None]:
        counter = iter(range(number, 1_000_000, 2))

        def step() -> None:
            blob = bucket.blob(f"object/{next(counter)}")
            blob.upload_from_string(blob.name * 10, retry=None, timeout=60, if_generation_match=0)
            confirmed[blob.name] = blob.generation

        return step

    traffic = Traffic()
    traffic.add(write(0))
    traffic.add(write(1))
    try:
        kill_in_the_middle(cloud, "storage", lambda: len(confirmed), 30)
    finally:
        traffic.end()
    found = {blob.name: blob.generation for blob in bucket.list_blobs()}
    assert {name: found.get(name) for name in confirmed} == confirmed
    for name in list(confirmed)[::7]:
        assert bucket.blob(name).download_as_text() == name * 10
    client.close()


def start_job(run_url: str, name: str, script: str, task_count: int = 1, max_retries: int = 3) -> None:
    container = {"image": "local", "command": ["sh"], "args": ["-c", script]}
    task = {"containers": [container], "maxRetries": max_retries}
    spec = {"template": {"spec": {"taskCount": task_count, "template": {"spec": task}}}}
    call("run", f"{run_url}{JOBS}", {"apiVersion": "run.googleapis.com/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})


def has_succeeded(run_url: str, execution: str) -> bool:
    found: Any = call("run", f"{run_url}{JOBS.replace('jobs', 'executions')}/{execution}")
    return bool(found["status"].get("succeededCount") == 1)


def test_run_loses_no_execution(cloud: LocalCloud) -> None:
    run_url = cloud.addresses.run
    start_job(run_url, "short", "exit 0", max_retries=10)
    confirmed: list[str] = []

    def launch() -> None:
        body: Any = call("run", f"{run_url}{JOBS}/short:run", {})
        confirmed.append(body["metadata"]["name"])

    traffic = Traffic()
    traffic.add(launch)
    try:
        kill_in_the_middle(cloud, "run", lambda: len(confirmed), 8)
    finally:
        traffic.end()
    for name in confirmed:
        wait_until(partial(has_succeeded, run_url, name), 30, f"{name} succeeds")


def test_workers_of_a_killed_run_go_on_until_its_restart_and_are_tried_again(cloud: LocalCloud, tmp_path: Path) -> None:
    run_url = cloud.addresses.run
    done = tmp_path / "second"
    start_job(run_url, "stays", f'if [ "$CLOUD_RUN_TASK_ATTEMPT" = 0 ]; then exec sleep 600; fi; touch {done}')
    body: Any = call("run", f"{run_url}{JOBS}/stays:run", {})
    (worker,) = wait_until(lambda: [one for one in running_workers(cloud.state_dir) if one.job == "stays"], description="the worker")
    cloud.kill("run")
    assert [one.pid for one in running_workers(cloud.state_dir)] == [worker.pid]
    cloud.restart("run")
    wait_until(lambda: has_succeeded(run_url, body["metadata"]["name"]), 30, "the second try succeeds")
    assert done.exists()
    assert worker.pid not in [one.pid for one in running_workers(cloud.state_dir)]


@pytest.mark.parametrize("service", ["pubsub", "storage", "run"])
def test_a_frozen_service_answers_when_it_is_thawed(cloud: LocalCloud, service: str) -> None:
    answers: list[object] = []
    url = cloud.addresses.http[service]
    asking = threading.Thread(target=lambda: answers.append(call(service, url)))
    cloud.freeze(service)
    try:
        assert cloud.states[service] == "frozen"
        with pytest.raises(ServiceFailed, match=f"{service} did not answer .*timed out"):
            call(service, url, within_s=0.2)
        asking.start()
        with pytest.raises(ServiceFailed, match=f"{service} is frozen, so its clock cannot be moved"):
            cloud.advance(1)
        assert not answers
    finally:
        cloud.thaw(service)
    asking.join(60)
    assert answers
    cloud.freeze(service)
    cloud.restart(service)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the states of threads are read from Linux's /proc")
def test_freeze_returns_once_every_thread_stands(cloud: LocalCloud) -> None:
    threads = Path(f"/proc/{cloud.pids['run']}/task")
    traffic = Traffic()

    def ask() -> None:
        call("run", cloud.addresses.http["run"])

    for _ in range(3):
        traffic.add(ask)
    try:
        for _ in range(20):
            cloud.freeze("run")
            states = {(one / "stat").read_text().rpartition(")")[2].split()[0] for one in threads.iterdir()}
            cloud.thaw("run")
            assert states == {"T"}
    finally:
        traffic.end()


def test_requests_that_make_no_sense_say_what_would(cloud: LocalCloud) -> None:
    with pytest.raises(ServiceFailed, match="no service 'puppsub'; there are: storage, pubsub, run"):
        cloud.freeze("puppsub")
    cloud.kill("storage")
    for change in (cloud.freeze, cloud.thaw, cloud.kill):
        with pytest.raises(ServiceFailed, match="storage does not run: restart it first"):
            change("storage")
    assert cloud.states == {"storage": "killed", "pubsub": "runs", "run": "runs"}
    assert set(cloud.pids) == {"pubsub", "run"}
    cloud.restart("storage")


def test_a_restarted_service_has_the_time_of_the_others(cloud: LocalCloud) -> None:
    cloud.advance(1_000)
    cloud.kill("storage")
    cloud.advance(1_000)
    cloud.restart("storage")
    cloud.restart("pubsub")
    now = {name: float(str(call(name, f"{url}/clock")["now"])) for name, url in cloud.addresses.http.items()}
    assert max(now.values()) - min(now.values()) < 100


def test_faults_are_asked_for_and_reported(cloud: LocalCloud) -> None:
    cloud.faults.add("storage", "a-project", "objects.get", "http_503", {"kind": "slow", "seconds": 0.5})
    cloud.faults.add_rate("run", "a-project", "jobs.run", "unavailable", rate=0.5, seed=1)
    report = cloud.faults.report("a-project")
    assert report["storage"]["pending"] == 2
    assert "jobs.run" in json.dumps(report["run"])
    assert cloud.faults.report("another", ["storage"])["storage"]["faults"] == []
    with pytest.raises(ServiceFailed, match=r"(?s)storage refused .*objects\.get"):
        cloud.faults.add("storage", "a-project", "objects.gte", "http_503")
    assert cloud.faults.clear("a-project")["storage"]["pending"] == 2
    assert cloud.faults.report("a-project", ["storage"])["storage"]["faults"] == []
    with urllib.request.urlopen(cloud.addresses.storage, timeout=60) as answer:
        assert answer.status == 200


@pytest.mark.slow
def test_notifications_of_writes_during_an_outage_of_pubsub_come_after_restarts_of_both(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(cloud.addresses, monkeypatch)
    topic, subscription = "projects/local/topics/uploads", "projects/local/subscriptions/uploads"
    queue.publisher.create_topic(name=topic)
    queue.subscriber.create_subscription(name=subscription, topic=topic)
    client = storage.Client("local", AnonymousCredentials(), client_options={"api_endpoint": cloud.addresses.storage})
    bucket = client.create_bucket("uploads")
    bucket.notification("uploads", topic_project="local").create()
    cloud.kill("pubsub")
    bucket.blob("a").upload_from_string(b"x")
    cloud.kill("storage")
    cloud.restart("pubsub")
    cloud.restart("storage")
    bucket.blob("b").upload_from_string(b"x")
    found: list[str] = []

    def pull() -> bool:
        found.extend(one.message.attributes["objectId"] for one in pulled_at_once(queue.subscriber, subscription))
        return len(found) >= 2

    wait_until(pull, 60, "both notifications")
    assert sorted(found) == ["a", "b"]
