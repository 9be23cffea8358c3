"""A worker whose network comes after its start, as with direct VPC: it waits, says so, and nothing pays for it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from google.api_core.exceptions import DeadlineExceeded, GoogleAPICallError, NotFound, ServiceUnavailable
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from requests.exceptions import ConnectionError as NotConnected

from batch.dead.draining.job import Job
from batch.dead.lanes import write_lanes
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyError, DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError, Unreached
from batch.model.exit import ExitReason
from batch.services import network
from batch.services.calls import credentials_for
from batch.services.json_api import Answer
from batch.services.leases import LeaseKeeper
from batch.services.network import NETWORK_WITHIN_S, Network, name_project
from batch.services.objects import GoogleObjectStore
from batch.services.pubsub import GoogleSubscription
from batch.services.refusals import Where
from batch.services.topic import GoogleTopic
from batch.services.transport import Transport, failure_of
from batch.testing import ManualClock
from batch.worker.life import Worker
from tests.batch.dead.letterbox import LANE, Letterbox, settings
from tests.batch.worker.plant import Plant, write
from tests.clocks import JumpingClock

REFUSED = "[Errno 111] Connection refused"
LOOKED_S = 30.0


class Clock(JumpingClock):
    """Waits of the thread that made it move it, and the watchdog looks after each."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = threading.get_ident()
        self._looked = threading.Event()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if threading.current_thread().name == "watchdog":
            self._looked.set()
        if threading.get_ident() != self._owner:
            return super().wait(event, timeout_s)
        self._looked.clear()
        self.advance(timeout_s)
        if any(one.name == "watchdog" for one in threading.enumerate()):
            assert self._looked.wait(LOOKED_S)
        return event.is_set()


class Gate:
    """Refuses every call until `opens_after_s` of the clock have passed, by `error`."""

    def __init__(self, clock: Any, opens_after_s: float, error: Callable[[str], FanoutError] = Unreached) -> None:
        self._clock, self._error = clock, error
        self.opens_s = clock.monotonic() + opens_after_s
        self.refused: list[str] = []

    def check(self, what: str) -> None:
        if self._clock.monotonic() < self.opens_s:
            self.refused.append(what)
            raise self._error(f"cannot {what}: {REFUSED}")


class Gated:
    """A store, subscription or topic behind the gate."""

    def __init__(self, real: Any, gate: Gate) -> None:
        self.real, self._gate = real, gate

    def __getattr__(self, name: str) -> Any:
        if name == "info" and not callable(getattr(type(self.real), name, None)):
            self._gate.check(name)
        found = getattr(self.real, name)
        return partial(self._checked, name, found) if callable(found) else found

    def _checked(self, name: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self._gate.check(name)
        return call(*arguments, **named)


@pytest.fixture
def plant() -> Plant:
    made = Plant(clock=Clock())
    made.registry.task("write")(write)
    return made


def behind(plant: Plant, gate: Gate, *, store: bool = True, pubsub: bool = True, network: Network | None = None) -> Worker:
    worker = plant.worker(TASK_TIMEOUT_S=600, WATCHDOG_S=20, DECISION_ID="d.0", BACKLOG=5)
    topics = plant.broker.topic
    gated: tuple[Any, Any] = (
        Gated(plant.store, gate) if store else plant.store,
        Gated(plant.subscription, gate) if pubsub else plant.subscription,
    )
    return Worker(
        worker.settings,
        plant.registry,
        gated[1],
        Gated(topics("dead-letters"), gate) if pubsub else topics("dead-letters"),
        gated[0],
        plant.clock,
        random.Random(1),
        lambda name: Gated(topics(name), gate),
        network,
    )


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(getattr(one, "event", "")) for one in caplog.records]


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


@pytest.mark.parametrize(("store", "pubsub"), [(True, True), (True, False), (False, True)])
def test_a_worker_without_a_network_for_90_s_waits_and_then_drains(
    plant: Plant, caplog: pytest.LogCaptureFixture, store: bool, pubsub: bool
) -> None:
    ids = plant.submit(4)
    plant.publish(b"no task", lane="lane")  # a dead letter: the third service, after it
    gate = Gate(plant.clock, 90.0)
    worker = behind(plant, gate, store=store, pubsub=pubsub)
    assert worker.run() is ExitReason.SHARE_DONE
    assert len(gate.refused) > 30, "each look was refused"
    told = events(caplog)
    assert [one for one in told if one.startswith("network_")] == ["network_awaited", "network_reached"]
    assert not {"worker_broken", "worker_stuck", "dependency_failed"} & {*told}
    (awaited, reached) = [one for one in caplog.records if str(getattr(one, "event", "")).startswith("network_")]
    assert REFUSED in awaited.getMessage()
    assert 88 <= reached.waited_s <= 95  # type: ignore[attr-defined]
    assert dict.fromkeys(ids, "succeeded").items() <= plant.final().items()
    assert (len(plant.letters()), len(plant.store.names("attempts/")), plant.progress().exit_reason) == (1, 0, "share_done")


def test_its_time_counts_from_the_start_of_the_process(plant: Plant) -> None:
    """Or Cloud Run would end a worker that had to wait for its credentials before its own end."""
    network = Network(plant.clock, 600.0)
    plant.clock.advance(100)  # type: ignore[attr-defined]
    worker = behind(plant, Gate(plant.clock, 0.0), network=network)
    assert worker.shutdown.bounds.started_s == network.began_s


@pytest.mark.parametrize(("timeout_s", "waits_s"), [(300, 100.0), (3600, NETWORK_WITHIN_S)])
def test_it_waits_no_longer_than_a_part_of_its_time(plant: Plant, timeout_s: int, waits_s: float) -> None:
    began_s = plant.clock.monotonic()
    worker = behind(plant, Gate(plant.clock, 1e9), network=Network(plant.clock, timeout_s))
    assert worker.run() is ExitReason.BROKEN
    assert waits_s <= plant.clock.monotonic() - began_s < waits_s + 10
    assert REFUSED in worker._breaker.reason


@pytest.mark.parametrize("error", [DependencyForbidden, DependencyUnavailable, DependencyError])
def test_what_a_service_answered_is_not_waited_for(plant: Plant, error: type[FanoutError], caplog: pytest.LogCaptureFixture) -> None:
    began_s = plant.clock.monotonic()
    assert behind(plant, Gate(plant.clock, 90.0, error)).run() is ExitReason.BROKEN
    assert plant.clock.monotonic() - began_s < 10
    assert "network_awaited" not in events(caplog)


def test_a_signal_ends_the_wait_in_order(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(plant.clock, 1e9)
    worker = behind(plant, gate)
    check = gate.check

    def checked(what: str) -> None:
        if len(gate.refused) == 3:
            worker.stop()
        check(what)

    gate.check = checked  # type: ignore[method-assign]
    assert (worker.run(), len(gate.refused)) == (ExitReason.STOPPED, 4)
    assert "worker_broken" not in events(caplog)


@pytest.mark.slow
def test_once_it_works_an_outage_is_a_failure_as_before(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    plant.submit(4)
    gate = Gate(plant.clock, 0.0)
    worker = behind(plant, gate, store=False)
    pull = plant.subscription.pull

    def pulled(max_messages: int, timeout_s: float) -> Any:
        gate.opens_s = 1e9
        return pull(max_messages, timeout_s)

    plant.subscription.pull = pulled  # type: ignore[method-assign]
    assert worker.run() is ExitReason.BROKEN
    assert "network_awaited" not in events(caplog)


def test_the_dead_letters_job_waits_too(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseKeeper, "start", lambda _self: None)  # its waits would move the clock
    box = Letterbox()
    write_lanes(box.store, {LANE.name: LANE})
    box.by_worker("task-1")
    gate = Gate(box.clock, 90.0)
    given = settings(CLOUD_RUN_EXECUTION="dl-1")
    store: Any = Gated(box.store, gate)
    job = Job(given, box.dead, box.broker.topic, store, box.clock, random.Random(1), Network(box.clock, given.task_timeout_s))
    assert job.run() is ExitReason.DRAINED
    assert [one for one in events(caplog) if one.startswith("network_")] == ["network_awaited", "network_reached"]
    gate.opens_s = 1e12
    waiting = Job(given, box.dead, box.broker.topic, store, box.clock, random.Random(1), Network(box.clock, given.task_timeout_s))
    waiting.stop()
    assert waiting.run() is ExitReason.STOPPED


# --- which errors say that no connection came about


@pytest.fixture
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listens at the addresses of Google's services."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{address}")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)


@pytest.mark.usefixtures("_nobody")
def test_pull_storage_and_publish_say_that_nobody_answers() -> None:
    clock = ManualClock()
    store = GoogleObjectStore("bucket", project="p", clock=clock)
    subscription, topic = GoogleSubscription("p", "s", clock=clock), GoogleTopic("p", "t", clock=clock)
    calls: list[Callable[[], object]] = [
        lambda: store.write("a", b""),
        lambda: store.info("a"),
        lambda: subscription.info,
        lambda: subscription.pull(1, 5.0),
        lambda: topic.publish([Outgoing(b"", {})]),
    ]
    try:
        for call in calls:
            with pytest.raises(Unreached):
                call()
    finally:
        for one in (store, subscription, topic):
            one.close()


@pytest.mark.usefixtures("_nobody")
def test_a_store_that_was_never_reached_says_so_soon_and_one_that_was_tries_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits for its network hears a signal between two looks."""

    def gives_up_after_s() -> float:
        begun_s = clock.monotonic()
        with pytest.raises(Unreached):
            store.info("a")
        return clock.monotonic() - begun_s

    clock = ManualClock()
    store = GoogleObjectStore("bucket", project="p", clock=clock, reached_within_s=3.0)
    assert gives_up_after_s() <= 3.0
    exchange = Transport._exchange
    monkeypatch.setattr(Transport, "_exchange", lambda *_: Answer(404, {}, b"No such object"))
    assert store.info("a") is None
    monkeypatch.setattr(Transport, "_exchange", exchange)
    assert gives_up_after_s() > 40.0
    store.close()


@pytest.mark.usefixtures("_nobody")
def test_a_subscription_that_is_not_reached_says_so_soon_to_who_waits() -> None:
    clock = ManualClock()
    subscription = GoogleSubscription("p", "s", clock=clock, look_within_s=3.0)
    begun_s = clock.monotonic()
    with pytest.raises(Unreached):
        _ = subscription.info
    assert clock.monotonic() - begun_s <= 3.0
    subscription.close()


@pytest.mark.usefixtures("_nobody")
@pytest.mark.parametrize(
    ("error", "kind", "tried_s"),
    [
        (ServiceUnavailable("The service is overloaded"), DependencyUnavailable, 20.0),  # it answers: no network is waited for
        (DeadlineExceeded("Deadline Exceeded"), Unreached, 0.0),  # perhaps no connection came about
        (NotFound("no such subscription"), DependencyMissing, 0.0),
    ],
)
def test_what_pubsub_answers_is_tried_as_long_as_any_call(error: GoogleAPICallError, kind: type[FanoutError], tried_s: float) -> None:
    clock = ManualClock()
    subscription = GoogleSubscription("p", "s", clock=clock, look_within_s=3.0)
    begun_s = clock.monotonic()

    def refuse(**_: object) -> None:
        raise error

    subscription._client.get_subscription = refuse
    with pytest.raises(FanoutError) as caught:
        _ = subscription.info
    assert type(caught.value) is kind
    assert tried_s <= clock.monotonic() - begun_s <= max(3.0, 1.5 * tried_s)
    subscription.close()


def test_a_name_that_nobody_knows_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.invalid")
    store = GoogleObjectStore("bucket", project="p", clock=ManualClock())
    with pytest.raises(Unreached):
        store.info("a")
    store.close()


WHERE = Where("reach", "bucket", "p")


def refresh_error(cause: Exception) -> RefreshError:
    error = RefreshError("no token")
    error.__cause__ = TransportError("Compute Engine Metadata server unavailable")
    error.__cause__.__cause__ = cause
    return error


def test_a_token_that_does_not_come_is_no_network_and_one_that_is_refused_is() -> None:
    assert isinstance(failure_of(refresh_error(NotConnected("refused")), WHERE), Unreached)
    assert isinstance(failure_of(refresh_error(ValueError("404: no such service account")), WHERE), DependencyForbidden)


def test_on_cloud_run_credentials_may_yet_come(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = DefaultCredentialsError("not found")

    def found() -> type[FanoutError]:
        with pytest.raises(FanoutError) as caught, credentials_for("topic t"):
            raise missing
        assert type(caught.value) is type(failure_of(missing, WHERE))
        return type(caught.value)

    for name in ("CLOUD_RUN_EXECUTION", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    assert found() is DependencyForbidden
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", "default-abcde")
    assert found() is Unreached
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", os.devnull)
    assert found() is DependencyForbidden


def test_the_project_is_waited_for_on_cloud_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    opens_s = clock.monotonic() + 90

    def project(_server: str) -> str:
        if clock.monotonic() < opens_s:
            raise OSError("Network is unreachable")
        return "of-the-server"

    monkeypatch.setattr(network, "_project", project)
    environment: dict[str, str] = {}
    name_project(environment)
    assert environment == {}, "elsewhere nobody waits"
    name_project(environment, Network(clock, 600.0))
    assert environment == {"GOOGLE_CLOUD_PROJECT": "of-the-server"}
    assert events(caplog) == ["project_not_named", "network_awaited", "network_reached"]


def test_a_signal_that_comes_before_there_is_a_worker_ends_the_wait() -> None:
    """Nobody can call `stop` yet."""
    clock, looks = ManualClock(), []
    stopped_s = clock.monotonic() + 5

    def look() -> None:
        looks.append(clock.monotonic())
        raise Unreached(REFUSED)

    with pytest.raises(Unreached):
        Network(clock, 600.0, lambda: clock.monotonic() >= stopped_s).first(look)
    assert len(looks) == 3


@pytest.mark.slow
@pytest.mark.parametrize("program", [[], ["dead-letters"]])
def test_a_process_that_waits_for_its_project_hears_sigterm(program: list[str]) -> None:
    """Cloud Run kills it ten seconds later."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = {"CLOUD_RUN_EXECUTION": "default-abcde", "GCE_METADATA_HOST": server, "TASK_TIMEOUT_S": "600"}
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
        with subprocess.Popen([sys.executable, "-m", "batch", *program], env=kept | settings, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "network_awaited" in process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert "worker_stopping" in process.stdout.read()
