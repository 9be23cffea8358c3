"""Every error that Fanout raises on purpose, as one tree; Google's own exceptions are translated into it at the seams.

    FanoutError
    ├── SettingsError             settings are wrong; all problems at once
    ├── NameRefused               an object name from a client that could leave its folder
    ├── MessageRefused            data that can never become a task (permanent)
    ├── ResultRefused             (batch.model.result) a handler returned what JSON cannot hold
    ├── WrongResults              (batch.handling.answer) a grouped handler returned no list with one result for each task
    ├── SubmissionClosed          (batch.client.submission) no more tasks may be added
    ├── RequestRefused            (intake.problems) what the front door answers with other than 200
    ├── DoorRefused               (batch.client.http.exchange) the front door answered a client with an error; carries its problem
    ├── CollectorFull             (intake.collector) as many tasks wait in the front door as may
    ├── PokeFailed                (intake.pokes) the controller did not take the report of accepted tasks
    ├── PokesRefused              (controller.service.pokes) what was posted is no list of pokes
    ├── TokenRefused              (batch.serving.oidc) the caller may not do this
    ├── CertificatesUnavailable   (batch.serving.oidc) nothing to check tokens with
    ├── ManifestRefused           (controller.observe.deployed) Cloud Run did not accept a job's manifest
    │   └── JobChanged            (controller.observe.deployed) somebody else changed the job since it was read
    ├── LaunchRefused             (controller.observe.jobs) Cloud Run started nothing
    │   └── LaunchThrottled       (controller.observe.jobs) too many launches, or a quota is used up; later it may start
    ├── StateConflict             (controller.act.state) another controller has changed the lane's state
    ├── StateUnreadable           (controller.act.state) the state is not what a controller writes
    ├── ReservedUnreadable        (controller.act.reserved) the reserved workers are not what a controller writes
    ├── HandlerSignal             how a handler speaks; not failures of the worker
    │   ├── Permanent             this task can never succeed
    │   ├── Retry                 run it again later; counts as an attempt
    │   ├── Snooze                run it again later; no attempt is spent
    │   ├── Superseded            a newer task owns this task's output
    │   └── Cancelled             a client has cancelled this task while it ran
    ├── PreconditionFailed        an object changed, or existed, before our conditional write
    ├── ObjectMissing             an object that was to be read does not exist
    ├── ObjectDamaged             an object's content is not what its Content-Encoding says
    ├── ObjectTooLarge            an object is larger than its reader takes
    ├── ServiceRefused            a service said that this one request is wrong; repeating it cannot help
    ├── CopyRefused               a copy of a process, made by fork, used what belongs to that process
    └── DependencyError           a service we need failed; never the fault of a task
        ├── DependencyMissing     the subscription, topic, bucket or job does not exist
        ├── DependencyForbidden   it exists and this identity may not use it
        ├── DependencyUnavailable it did not answer, or said to try later
        │   ├── TakenOver         (batch.client.receipts) another request goes on with a keyed submission
        │   └── LaunchUnclear     (controller.observe.jobs) the execution may exist or not
        ├── NotServed             (fanout.doctor.services) the service has no such call
        └── SubmissionInterrupted (batch.client.submission) a submission stopped midway; it says what is certain

Beside the tree stand those that must not be taken for one of it. Control flow of the worker, caught in its own package:

    Exception
    ├── Garbled                   (batch.child.wire) what came over the wire is no frame
    ├── CannotStart               (batch.worker.executors.child_process) a child did not get ready
    ├── NeverBegan                (batch.worker.executors.child_process) a child was gone before its handler began
    └── HandlersHang              (batch.worker.executors.overdue) as many handlers hang as a worker can bear

What user code on the way must not catch, by `except Exception`:

    BaseException
    ├── Overtaken                 (batch.worker.executors.overdue) ends a thread whose handler came back too late
    ├── Crashed                   (batch.testing.watched) the process that ran a handler has died, in a rehearsal
    └── TimeOver                  (batch.testing.observed) a handler has slept beyond its time limit, by a clock that stands still

And those that belong to another library's tree:

    AssertionError
    └── NotDrained                (batch.testing.drained) a test's tasks were left over
    ClickException
    └── CommandFailed             (fanout.output) ends a command with an exit code of its own

The message of an error says what happened, to what, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from batch.model.texts import plain

MAX_WAIT_S = 30 * 24 * 3600.0
"""How long a handler may put a task off."""


def checked_wait_s(after_s: object) -> float:
    """Raises ValueError unless it is a number of seconds from 0 to 30 days: in the handler that gave it, where it can be seen."""
    if isinstance(after_s, int | float) and 0 <= after_s <= MAX_WAIT_S:
        return float(after_s)
    raise ValueError(f"after_s must be a number of seconds from 0 to {MAX_WAIT_S:.0f}, got {after_s!r}")


def text_of(error: BaseException) -> str:
    """An error's own text, as it may be stored anywhere; a replacement where its `__str__` raises."""
    return plain(error)


class FanoutError(Exception):
    """Something that Fanout noticed and can explain."""

    def __reduce__(self) -> tuple[object, ...]:
        """Comes as it was out of another process, whatever its class takes to be made: a pool of processes pickles errors."""
        return _remade, (type(self), self.args, self.__dict__.copy())


def _remade(kind: type[FanoutError], arguments: tuple[object, ...], attributes: dict[str, object]) -> FanoutError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class SettingsError(FanoutError):
    """One or more settings are wrong. `problems` has a line for each, with name, value, rule and, where near, the name meant."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class NameRefused(FanoutError):
    """An object name that is absolute, climbs with `..`, is empty or too long, or holds control characters."""


class MessageRefused(FanoutError):
    """A message that is not JSON, not an object, of an unknown type, or invalid for its type. Trying again cannot help.

    `kind` is one of `not_json`, `not_an_object`, `no_task_type`, `unknown_task_type`, `invalid`, `too_large`;
    it becomes the dead letter's error type. `fields` are the names of the fields that are wrong, where they are known.
    """

    def __init__(self, kind: str, reason: str, fields: Sequence[str] = ()) -> None:
        self.kind = kind
        self.fields = tuple(fields)
        super().__init__(reason)


class HandlerSignal(FanoutError):
    """Raised by a handler to say what the worker does with its task."""


class Permanent(HandlerSignal):
    """This task can never succeed: it is dead-lettered at once, with this reason."""


class Retry(HandlerSignal):
    """Run the task again after `after_s` seconds (None: by the handler's backoff). Counts as an attempt."""

    def __init__(self, reason: str = "the handler asked for a retry", after_s: float | None = None) -> None:
        self.after_s = None if after_s is None else checked_wait_s(after_s)
        super().__init__(reason)


class Snooze(HandlerSignal):
    """Run the task again after `after_s` seconds. No attempt is spent."""

    def __init__(self, after_s: float, reason: str = "the handler asked to wait") -> None:
        self.after_s = checked_wait_s(after_s)
        super().__init__(reason)


class Superseded(HandlerSignal):
    """A newer task has written the output that this task would write; this one yields."""


class Cancelled(HandlerSignal):
    """A client has cancelled this task, as `ctx.cancelled` says, and its handler ends without its work. Where nobody has cancelled the
    task it is a failed attempt."""


class PreconditionFailed(FanoutError):
    """The object is not at the generation that the write named (0: it exists already)."""

    def __init__(self, name: str, if_generation: int) -> None:
        self.name = name
        self.if_generation = if_generation
        state = "exists already" if if_generation == 0 else f"is not at generation {if_generation} any more"
        super().__init__(f"object {name} {state}")


class ObjectMissing(FanoutError):
    """There is no object of this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"object {name} does not exist")


class ObjectDamaged(FanoutError):
    """An object's content is not what its Content-Encoding says: cut short, changed, or never encoded."""


class ObjectTooLarge(FanoutError):
    """An object's content has more than `max_bytes`, which is what its reader takes."""

    def __init__(self, name: str, max_bytes: int) -> None:
        self.name = name
        self.max_bytes = max_bytes
        super().__init__(f"object {name} is larger than the {max_bytes:,} bytes that its reader takes: split it, or raise that limit")


class ServiceRefused(FanoutError):
    """The service answered that this one request is wrong: a retention policy keeps the object, the message is too large. No outage."""


class CopyRefused(FanoutError):
    """A copy of a process, made by `fork`, used a connection that belongs to that process."""


class DependencyError(FanoutError):
    """A Google service that we need failed. Tasks do not pay for it: they are nacked and spend no attempt."""


class DependencyMissing(DependencyError):
    """A subscription, topic, bucket or job that the settings name does not exist."""


class DependencyForbidden(DependencyError):
    """The service answered that this identity may not do it."""


class DependencyUnavailable(DependencyError):
    """The service did not answer in time, or answered that it is to be tried later."""
