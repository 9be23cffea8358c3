"""`python -m batch`: one worker of a lane, or, with `dead-letters`, of the dead-letters job, from the environment to its exit code.

The main thread only waits for signals. After the last flush the process ends at once, so that a stuck handler cannot hold it.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from batch.copies import copies
from batch.descendants import adopt, end_all
from batch.events import log
from batch.handling.answer import tasks_begin_as_now
from batch.handling.registry import Registry, load_handlers
from batch.logs import set_up_logging
from batch.memory import collect_seldom, give_large_blocks_back
from batch.model.clock import Clock, SystemClock
from batch.model.errors import FanoutError, MessageRefused, SettingsError, Unreached
from batch.model.exit import EXIT_BROKEN, EXIT_CODES, EXIT_CRASHED, EXIT_SETTINGS, EXIT_STUCK, ExitReason, exit_code
from batch.printed import take_what_is_printed
from batch.services.calls import role
from batch.services.network import LOOK_S, PROJECT, Network, name_project
from batch.services.ports import Topic
from batch.settings import SIGTERM_GRACE_S, WorkerSettings, default_text, names, read, worker_settings
from batch.telemetry.starting import Telemetry, Watched, begins_traces, of_worker, started

if TYPE_CHECKING:
    from batch.worker.life import Worker

STUCK_GRACE_S = 3.0
BESIDE = 64
"""Requests to the bucket that may be under way beside those of handlers: progress, outcomes, delayed tasks, and as most of them the records
of tasks that were delivered before."""
SIGNALS: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTSTP: signal.SIG_DFL,
}
"""What the worker hears, and what a program does with it by default."""
DEAD_LETTERS = "dead-letters"
_ON_CLOUD_RUN = "CLOUD_RUN_EXECUTION"
GONE = -1
ENDED = 0
"""The byte that the worker's thread writes to the wake-up pipe; signals write their number."""


def options(kind: type[Any] = WorkerSettings) -> argparse.ArgumentParser:
    """Each setting as an option; an option wins over the environment."""
    codes = "\n".join(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items())
    program, other = f"python -m batch {DEAD_LETTERS}", ""
    does = "Drain the dead-letter subscription into the log of dead letters, apply the lanes' retry rules, end."
    if kind is WorkerSettings:
        other = f"{program} drains the dead-letter subscription into the log of dead letters, and has its own --help.\n\n"
        program = "python -m batch"
        does = "Take a bounded share of a subscription's messages, process them, write results, acknowledge, end."
    parser = argparse.ArgumentParser(
        prog=program,
        description=does,
        epilog=f"{other}exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for one in fields(kind):
        env = one.metadata["env"]
        default = f" (default: {shown})" if (shown := default_text(one.default)) else ""
        option, text = f"--{env.lower().replace('_', '-')}", f"{one.metadata['help']} [{env}]{default}"
        parser.add_argument(option, dest=env, metavar="VALUE", help=text)
    return parser


def environment_with(
    arguments: Sequence[str], environment: Mapping[str, str], rng: random.Random, kind: type[Any] = WorkerSettings
) -> dict[str, str]:
    """The environment, overridden by options. Outside Cloud Run an execution gets a name of its own, so that no two share their objects."""
    given = {env: value for env, value in vars(options(kind).parse_args(arguments)).items() if value is not None}
    named = {"CLOUD_RUN_EXECUTION": f"local-{rng.getrandbits(40):010x}"}
    return named | dict(environment) | given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker; returns its exit code."""
    faulthandler.enable(file=2)  # standard error by its number: a module or handler may close or replace the stream
    signals = Signals()
    adopt()
    copies.tie()
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # or its C library starts threads in copies, and says so at each fork
    give_large_blocks_back()
    rng = random.SystemRandom()
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == [DEAD_LETTERS]:
        return dead_letters(given[1:], signals, rng)
    role.name = "worker"
    environment = environment_with(given, os.environ, rng)
    set_up_logging()
    take_what_is_printed()
    network = _network(environment, signals)
    name_project(environment, network if _ON_CLOUD_RUN in os.environ else None)
    if signals.stop_came:
        return _stopped()
    try:
        settings, registry = configured(environment)
        telemetry = started(settings.telemetry, of_worker(settings, os.environ), os.environ, SystemClock(), of_handlers=True)
        # Also where they come from options or the metadata server: handlers and children look there.
        os.environ |= {"DATA_MAX_BYTES": str(settings.data_max_bytes), PROJECT: settings.project}
    except SettingsError as error:
        return _refused(error)
    signals.arm()  # a module of handlers may have taken them when it was imported
    who = {"job": settings.job, "execution": settings.execution, "index": settings.index, "retry": settings.retry}
    set_up_logging(settings.log_level, settings.project, **who, lane=settings.lane_name)  # also a module may have configured logging
    tasks_begin_as_now()
    try:
        worker = network.first(lambda: build(settings, registry, rng, network, telemetry))
    except FanoutError as error:
        if isinstance(error, Unreached) and network.stopped:
            return _stopped()
        log("worker_broken", error=str(error))
        return EXIT_BROKEN
    collect_seldom()
    return _run(worker, signals, SystemClock())


def dead_letters(arguments: Sequence[str], signals: Signals, rng: random.Random) -> int:
    """Run a worker of the dead-letters job; returns its exit code."""
    from batch.dead.draining.job import built
    from batch.dead.draining.settings import DeadLetterSettings

    role.name = DEAD_LETTERS
    environment = environment_with(arguments, os.environ, rng, DeadLetterSettings)
    set_up_logging()
    network = _network(environment, signals)
    name_project(environment, network if _ON_CLOUD_RUN in os.environ else None)
    if signals.stop_came:
        return _stopped()
    try:
        settings = read(DeadLetterSettings, environment)
    except SettingsError as error:
        return _refused(error)
    set_up_logging(settings.log_level, settings.project, job=settings.job, execution=settings.execution, index=settings.index)
    try:
        job = network.first(lambda: built(settings, SystemClock(), rng, network))
    except FanoutError as error:
        if isinstance(error, Unreached) and network.stopped:
            return _stopped()
        log("worker_broken", error=str(error))
        return EXIT_BROKEN
    return _run(job, signals, SystemClock())


def _network(environment: Mapping[str, str], signals: Signals) -> Network:
    """Before the settings are read: their project may come over it. A timeout that is no number is told with them."""
    timeout_s = WorkerSettings.task_timeout_s
    with suppress(ValueError, KeyError):
        timeout_s = float(environment["TASK_TIMEOUT_S"])
    return Network(SystemClock(), timeout_s, lambda: signals.stop_came)


def _stopped() -> int:
    """A signal came while the process waited for its network: nothing was begun."""
    log("worker_stopping", outstanding_count=0)
    return exit_code(ExitReason.STOPPED)


def _refused(error: SettingsError) -> int:
    for problem in error.problems:
        log("settings_wrong", error=problem)
    return EXIT_SETTINGS


def configured(environment: Mapping[str, str]) -> tuple[WorkerSettings, Registry]:
    """Settings and handlers. Raises SettingsError with the problems of both."""
    problems: list[str] = []
    settings, registry = None, Registry()
    try:
        settings = worker_settings(environment)
    except SettingsError as error:
        problems += error.problems
    try:
        registry = load_handlers(settings.handlers if settings else _named(environment.get("HANDLERS", "")))
    except SettingsError as error:
        problems += error.problems
    if settings is None or problems:
        raise SettingsError(problems)
    if settings.forms.foreign and settings.default_type:
        try:
            registry[settings.default_type]
        except MessageRefused as error:  # or all messages of others would die of it
            raise SettingsError([f"DEFAULT_TYPE={settings.default_type!r}: {error}"]) from error
    return settings, registry


def _named(handlers: str) -> tuple[str, ...]:
    """The modules to try when other settings are wrong; a text that names none is among what is wrong."""
    try:
        return names(handlers)
    except ValueError:
        return ()


def build(
    settings: WorkerSettings, registry: Registry, rng: random.Random, network: Network | None = None, telemetry: Telemetry | None = None
) -> Worker:
    """The worker with the real clients. Raises DependencyForbidden when there are no credentials, Unreached when they may yet come."""
    from batch.built_in import with_built_in
    from batch.services.calls import resource_of
    from batch.services.objects import GoogleObjectStore
    from batch.services.pubsub import GoogleSubscription
    from batch.services.topic import GoogleTopic
    from batch.worker.committing.republishing import PUBLISH_WITHIN_S
    from batch.worker.life import Worker

    def topic(name: str) -> Topic:
        found = resource_of("topic", name, settings.project)
        return watched.topic(GoogleTopic(found.project, found.name, retry_within_s=PUBLISH_WITHIN_S, request_timeout_s=PUBLISH_WITHIN_S))

    clock = SystemClock()
    watched = Watched(telemetry, clock)
    store = GoogleObjectStore(
        settings.bucket_name,
        project=settings.project,
        pool_size=2 * settings.concurrency + BESIDE,
        reached_within_s=LOOK_S,
        billing_project=settings.billing_project,
    )
    subscription = watched.subscription(
        GoogleSubscription(settings.project, settings.subscription_name, fallback_topic=settings.topic_name, look_within_s=LOOK_S)
    )
    return Worker(
        settings,
        with_built_in(registry, settings, store, topic, clock, rng),
        subscription,
        watched.topic(GoogleTopic(settings.project, settings.dead_letter_topic)),
        store,
        clock,
        rng,
        topic,
        network,
        watched.attempts(subscription, settings.lane_name, begins_traces(os.environ)),
        telemetry.end if telemetry is not None else None,
    )


class Signals:
    """SIGTERM, SIGINT and SIGTSTP as bytes in a pipe: from the first moment on, so that an early one is not lost. In copies that handlers
    fork they do what they do in any program, also while the copy is made."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.write_end, False)
        self.stop_came = False
        self._held = threading.local()
        self.arm()
        os.register_at_fork(before=self._hold, after_in_parent=self._go_on, after_in_child=self._leave_to_parent)

    def arm(self) -> None:
        """Direct the signals to this pipe, whatever handled them before."""
        signal.set_wakeup_fd(self.write_end)
        for number in SIGNALS:
            signal.signal(number, self._came)

    def _came(self, number: int, _frame: Any) -> None:
        """For who looks before anybody reads the pipe."""
        self.stop_came = self.stop_came or number != signal.SIGTSTP

    def wait(self, timeout_s: float | None) -> bytes:
        """The numbers of signals that came, and ENDED; empty when the time is over."""
        return os.read(self.read_end, 64) if select.select([self.read_end], [], [], timeout_s)[0] else b""

    def end(self) -> None:
        """Wake the main thread, from any thread."""
        os.write(self.write_end, bytes([ENDED]))

    def _hold(self) -> None:
        """Until a copy has left the pipe: a signal to it would be written there, and end the worker. Others of its threads hear signals."""
        self._held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def _go_on(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held.mask)

    def _leave_to_parent(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, action in SIGNALS.items():
            signal.signal(number, action)
        for end in {self.read_end, self.write_end} - {GONE}:
            with suppress(OSError):
                os.close(end)
        self.read_end = self.write_end = GONE  # in a copy of the copy these numbers are other files
        self._go_on()


class Running(Protocol):
    """What `_run` runs: a worker."""

    @property
    def outstanding_count(self) -> int:
        """Messages that are not acknowledged."""

    def run(self) -> ExitReason:
        """Blocks until it has ended."""

    def stop(self) -> None:
        """End soon."""

    def extend_leases(self) -> None:
        """The machine is about to pause."""

    def when_stuck(self, call: Callable[[], None]) -> None:
        """Call this if `run` may never come back."""


def _run(worker: Running, signals: Signals, clock: Clock) -> int:
    """Wait for the worker's end; turn signals into calls on it. After SIGTERM it ends in time, also when a service does not answer."""
    codes: list[int] = []

    def work() -> None:
        try:
            codes.append(exit_code(worker.run()))
        except BaseException:  # noqa: BLE001 - the last stop of a fault: logged, and the exit code says it
            log("worker_crashed", exception=traceback.format_exc())
            codes.append(EXIT_CRASHED)
        signals.end()

    def stuck() -> None:
        codes.insert(0, EXIT_STUCK)
        signals.end()
        # Standard output may stand still too, and the main thread with it.
        threading.Event().wait(STUCK_GRACE_S)
        end_all()
        os._exit(EXIT_STUCK)

    worker.when_stuck(stuck)
    threading.Thread(target=work, name="worker", daemon=True).start()
    end_s: float | None = None
    while True:
        came = signals.wait(None if end_s is None else max(0.0, end_s - clock.monotonic()))
        if not came:
            log("worker_cut_short", outstanding_count=worker.outstanding_count)
            return EXIT_BROKEN
        for byte in came:
            if byte == ENDED:
                return codes[0]
            if byte == signal.SIGTSTP:
                # In a thread: it may take longer than the pause that it is for.
                threading.Thread(target=worker.extend_leases, name="extend", daemon=True).start()
            else:
                end_s = end_s or clock.monotonic() + SIGTERM_GRACE_S - 1.0
                worker.stop()


def leave(code: int) -> NoReturn:
    """End this process at once, and with it what handlers have left."""
    from batch.child.folder import remove_all

    end_all()
    remove_all()
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(ValueError, OSError):  # a handler may have closed it
            if stream is not None:
                stream.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
