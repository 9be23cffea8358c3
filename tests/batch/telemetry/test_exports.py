"""What is exported, and that an exporter which fails, or hangs, holds nobody up. Settings, and a process without telemetry."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from batch.events import log
from batch.model.clock import SystemClock
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, SettingsError
from batch.settings import worker_settings
from batch.telemetry import exporting, starting
from batch.telemetry.measured import MeasuredSubscription, MeasuredTopic
from batch.telemetry.measures import CONSUMED, OPERATION, SENT
from batch.testing import ManualClock, MemoryBroker
from controller.config import controller_settings
from intake.config import intake_settings
from tests.batch.telemetry.gathered import SAMPLED, WHO, Failing, Gathered
from tests.batch.worker.plant import Plant, write
from tests.support import clean_environment

ENVIRONMENT = {"GOOGLE_CLOUD_PROJECT": "p", "SUBSCRIPTION_NAME": "sub", "BUCKET_NAME": "bucket", "TOPIC_NAME": "topic"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(exporting, "log", lambda event, message="", **_: lines.append(f"{event} {message}"))
    return lines


def test_calls_of_the_broker_are_counted_and_timed() -> None:
    gathered = Gathered()
    broker, measures, clock = MemoryBroker(ManualClock()), gathered.telemetry.measures, gathered.clock
    subscription = MeasuredSubscription(broker.subscription("sub", "topic"), measures, clock)
    topic = MeasuredTopic(broker.topic("topic"), measures, clock)
    topic.publish([Outgoing(b"1", {}), Outgoing(b"2", {})])
    deliveries = subscription.pull(10, 0.0)
    subscription.ack([one.ack_id for one in deliveries])
    subscription.nack([])
    gathered.spans()
    values = gathered.metrics.values()
    assert [(attributes["messaging.destination.name"], value) for attributes, value in values[SENT]] == [("topic", 2)]
    assert [value for _, value in values[CONSUMED]] == [2]
    assert {attributes["messaging.operation.name"] for attributes, _ in values[OPERATION]} == {"send", "receive", "ack", "nack"}
    assert all(attributes["fanout.lane"] == "lane" for attributes, _ in values[OPERATION])
    assert (subscription.name, subscription.info.topic.rpartition("/")[2], topic.name) == ("sub", "topic", "topic")


def test_a_call_that_fails_is_counted_with_its_error() -> None:
    gathered = Gathered()
    topic: Any = type("Topic", (), {"name": "topic", "publish": lambda _self, _messages: _raise(DependencyUnavailable("503"))})()
    with pytest.raises(DependencyUnavailable):
        MeasuredTopic(topic, gathered.telemetry.measures, gathered.clock).publish([Outgoing(b"1", {})])
    gathered.spans()
    assert [attributes["error.type"] for attributes, _ in gathered.metrics.values()[SENT]] == ["DependencyUnavailable"]


def _raise(error: Exception) -> None:
    raise error


def test_a_collector_that_is_down_is_told_of_and_the_work_goes_on(told: list[str]) -> None:
    plant, gathered = Plant(), Gathered(spans=Failing())
    plant.watch = gathered.attempts()
    plant.registry.task("write")(write)
    for number in range(3):
        body = {"task_id": f"t-{number}", "task_type": "write", "name": f"out/{number}"}
        plant.publish(json.dumps(body).encode(), traceparent=SAMPLED)
    gathered.telemetry.exports.start()
    plant.worker(BACKLOG=3).run()
    gathered.telemetry.end()
    assert set(plant.final().values()) == {"succeeded"}
    assert told == ["telemetry_failed telemetry failed: spans could not be exported: nobody listens"]


def test_a_collector_that_hangs_does_not_hold_the_end(told: list[str]) -> None:
    free = threading.Event()
    gathered = Gathered(spans=Failing(free))
    gathered.telemetry.exports.start()
    with gathered.service().sending("topic", {"traceparent": SAMPLED}):
        pass
    gathered.telemetry.exports.end(0.05)
    free.set()
    assert told[0] == "telemetry_failed telemetry failed: its last export did not end in 0.05 s"


def test_spans_that_come_too_fast_are_dropped_and_counted(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MAX_WAITING", 5)
    gathered = Gathered()
    for _ in range(8):
        with gathered.service().sending("topic", {"traceparent": SAMPLED}):
            pass
    assert len(gathered.spans()) == 5
    assert told == ["telemetry_failed telemetry failed: more spans came than could be exported"]


def test_an_exporter_that_cannot_be_made_is_told_of_once(told: list[str]) -> None:
    def make() -> Any:
        raise OSError("no credentials")

    telemetry = starting.telemetry_of(WHO, [make], SystemClock())
    telemetry.exports.start()
    telemetry.measures.ran("a", "returned", 1.0)
    telemetry.end()
    assert told == ["telemetry_failed telemetry failed: no exporter could be made: no credentials"]


def test_a_process_says_who_it_is_and_the_standard_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "cloud.region=europe-west1,service.version=7")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    environment = {**ENVIRONMENT, "CLOUD_RUN_EXECUTION": "lane-x", "CLOUD_RUN_JOB": "lane", "CLOUD_RUN_TASK_INDEX": "3"}
    environment["CLOUD_RUN_TASK_COUNT"] = "4"
    settings = worker_settings(environment)
    said = starting.telemetry_of(starting.of_worker(settings, environment), [], SystemClock()).provider.resource.attributes
    assert {name: said[name] for name in ("service.name", "service.version", "cloud.region", "service.instance.id", "faas.name")} == {
        "service.name": "mine",
        "service.version": "7",
        "cloud.region": "europe-west1",
        "service.instance.id": "lane-x/3/0",
        "faas.name": "lane",
    }
    instances = {starting.of_service("fanout-intake", "p", {"K_SERVICE": "door", "K_REVISION": "door-1"}).instance for _ in range(2)}
    assert len(instances) == 2


# --- settings


@pytest.mark.parametrize("read", [worker_settings, intake_settings, controller_settings])
def test_every_process_has_the_setting(read: Callable[[Mapping[str, str]], Any]) -> None:
    assert read(ENVIRONMENT).telemetry == ()
    assert read({**ENVIRONMENT, "TELEMETRY": " OTLP, google,otlp"}).telemetry == ("otlp", "google")
    with pytest.raises(SettingsError, match=r"TELEMETRY='oltp': one or more of otlp, google; did you mean otlp\?") as caught:
        read({**ENVIRONMENT, "TELEMETRY": "oltp", "LOG_LEVEL": "loud"})
    assert len(caught.value.problems) == 2


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(SettingsError, match=r"otlp needs opentelemetry.*not installed: install 'fanout-batch\[telemetry\]'"):
        worker_settings({**ENVIRONMENT, "TELEMETRY": "otlp"})


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [("OTEL_TRACES_SAMPLER", "traceidrato", "did you mean traceidratio?"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "one of http/protobuf")],
)
def test_variables_that_the_sdk_would_pass_over_are_refused(name: str, value: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        starting.started(("otlp",), WHO, {name: value}, SystemClock())
    assert hint in str(caught.value)


def test_without_the_setting_no_library_of_theirs_is_imported_by_us() -> None:
    program = (
        "import sys, batch.__main__\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "import intake.service, controller.service.service\n"
        "from batch.telemetry.starting import Watched, started\n"
        "telemetry = started((), None, {}, None)\n"
        "watched, one = Watched(telemetry, None), object()\n"
        "assert watched.subscription(one) is one and watched.topic(one) is one and watched.async_topic(one) is one\n"
        "assert telemetry is None and watched.service() is None and watched.attempts(one, '', False) is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=clean_environment())
    assert ended.stdout.strip() == "[]"


def test_the_event_is_in_the_table() -> None:
    log("telemetry_failed", error="x", span_count=1)
