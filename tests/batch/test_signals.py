"""Which error speaks for a handler: the outermost of ours, then causes, then a service in the context; of a group what loses least."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable

import pytest

from batch.handling.answer import Said, raised
from batch.handling.signals import holds, speaking
from batch.model.errors import (
    DependencyForbidden,
    DependencyUnavailable,
    FanoutError,
    MessageRefused,
    NameRefused,
    ObjectMissing,
    Permanent,
    PreconditionFailed,
    Retry,
    SettingsError,
    Snooze,
    Superseded,
)
from batch.worker.admission.slowing import fingerprint

DOWN = DependencyUnavailable("the bucket is down")


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("unhandled errors in a TaskGroup", errors)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """As `raise error from cause`."""
    error.__cause__ = cause
    return error


def amid(error: BaseException, context: BaseException) -> BaseException:
    """As raised while `context` was being handled, or in a `finally` after it."""
    error.__context__ = context
    return error


def cut(error: BaseException, context: BaseException) -> BaseException:
    """As `raise error from None` while `context` was being handled."""
    error.__context__ = context
    error.__suppress_context__ = True
    return error


def late(context: BaseException | None = None) -> BaseException:
    """As `asyncio.timeout` raises it."""
    cancelled = asyncio.CancelledError()
    cancelled.__context__ = context
    return caused(TimeoutError(), cancelled)


CASES: dict[str, tuple[Callable[[], BaseException], Said, str]] = {
    "itself": (lambda: Permanent("never"), Said.PERMANENT, "never"),
    "alone in a group": (lambda: group(DOWN), Said.DEPENDENCY, "the bucket is down"),
    "in a group in a group": (lambda: group(group(group(Snooze(5, "soon")))), Said.SNOOZED, "soon"),
    "a cause": (lambda: caused(RuntimeError("wrapped"), DOWN), Said.DEPENDENCY, "the bucket is down"),
    "a cause of a cause": (lambda: caused(RuntimeError("1"), caused(KeyError("2"), Permanent("never"))), Said.PERMANENT, "never"),
    "a cause in a group": (lambda: group(caused(RuntimeError("wrapped"), Retry("again"))), Said.FAILED, "again"),
    "a group as a cause": (lambda: caused(RuntimeError("wrapped"), group(Superseded("newer"))), Said.SUPERSEDED, "newer"),
    "a group's own cause": (lambda: caused(group(ValueError("a")), DOWN), Said.DEPENDENCY, "the bucket is down"),
    "a refused name in a group": (lambda: group(NameRefused("../x")), Said.INVALID, "../x"),
    "a refused message as a cause": (lambda: caused(ValueError("x"), MessageRefused("invalid", "no name")), Said.INVALID, "no name"),
    "a failure while a service was down": (lambda: amid(KeyError("x"), DOWN), Said.DEPENDENCY, "the bucket is down"),
    "a failure in the middle of a signal": (lambda: amid(OSError("close"), Permanent("never")), Said.FAILED, "close"),
    "a failure in the middle of a snooze": (lambda: amid(OSError("close"), Snooze(5)), Said.FAILED, "close"),
    "a signal that dealt with a service": (lambda: amid(OSError("close"), amid(Permanent("never"), DOWN)), Said.FAILED, "close"),
    "a context that was cut": (lambda: cut(ValueError("no such customer"), DOWN), Said.FAILED, "no such customer"),
    "the last word in a handler of an error": (lambda: amid(Permanent("never"), DOWN), Said.PERMANENT, "never"),
    "the last word from an error": (lambda: caused(Retry("again"), DOWN), Said.FAILED, "again"),
    "a service that failed while never was said": (lambda: amid(DependencyForbidden("no"), Permanent("never")), Said.DEPENDENCY, "no"),
    "a group amid a service's failure": (lambda: amid(group(ValueError("a"), Permanent("never")), DOWN), Said.PERMANENT, "never (one of 2"),
    "failures amid a service's failure": (lambda: amid(group(ValueError("a"), KeyError("b")), DOWN), Said.DEPENDENCY, "the bucket is"),
    "a limit of its own": (late, Said.FAILED, ""),
    "a limit of its own while a service was down": (lambda: late(DOWN), Said.DEPENDENCY, "the bucket is down"),
    "cancelled while a service was down": (lambda: amid(asyncio.CancelledError(), DOWN), Said.FAILED, ""),
    "a service beside never": (lambda: group(Permanent("never"), DOWN), Said.DEPENDENCY, "the bucket is down (one of 2 errors)"),
    "newer beside never": (lambda: group(Permanent("never"), Superseded("newer")), Said.SUPERSEDED, "newer (one of 2 errors)"),
    "newer beside a failure": (lambda: group(ValueError("a"), Superseded("newer")), Said.SUPERSEDED, "newer (one of 2 errors)"),
    "never beside a failure": (lambda: group(ValueError("a"), Permanent("never")), Said.PERMANENT, "never (one of 2 errors)"),
    "never beside a retry": (lambda: group(Retry("again"), Permanent("never")), Said.PERMANENT, "never (one of 2 errors)"),
    "a retry beside a failure": (lambda: group(ValueError("a"), Retry("again")), Said.FAILED, "again (one of 2 errors)"),
    "a failure beside a snooze": (lambda: group(Snooze(5), ValueError("a")), Said.FAILED, "a (one of 2 errors)"),
    "failures and snoozes, deep": (lambda: group(group(Snooze(5), ValueError("a")), Snooze(7)), Said.FAILED, "a (one of 3 errors)"),
    "a retry beside a snooze": (lambda: group(Snooze(5), Retry("again")), Said.FAILED, "again (one of 2 errors)"),
    "a snooze beside what was cancelled": (lambda: group(asyncio.CancelledError(), Snooze(5, "soon")), Said.SNOOZED, "soon"),
    "failures": (lambda: group(ConnectionError("refused"), KeyError("b"), ValueError("c")), Said.FAILED, "refused (one of 3 errors)"),
    "one failure beside what was cancelled": (lambda: group(asyncio.CancelledError(), ValueError("a")), Said.FAILED, "a"),
    "nothing but cancelled ones": (lambda: group(asyncio.CancelledError("x")), Said.FAILED, "x"),
    "an exit in a group": (lambda: group(SystemExit(3), KeyboardInterrupt()), Said.FAILED, "3 (one of 2 errors)"),
    "a failure from a failure": (lambda: caused(RuntimeError("stage 2"), ValueError("a")), Said.FAILED, "stage 2"),
    "a failure from failures": (lambda: caused(RuntimeError("stage 2"), group(ValueError("a"), KeyError())), Said.FAILED, "stage 2"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_that_speaks(name: str) -> None:
    make, said, reason = CASES[name]
    answer = raised(make())
    assert answer.said is said
    assert answer.reason.startswith(reason)
    assert "TaskGroup" not in answer.reason


def test_the_type_is_that_of_the_real_error() -> None:
    assert raised(group(group(ConnectionError("refused")))).error_type == "ConnectionError"
    assert raised(caused(group(ValueError("x")), DOWN)).error_type == "DependencyUnavailable"


@pytest.mark.parametrize(
    ("errors", "after_s"),
    [([Snooze(5), Snooze(60), Snooze(7)], 60.0), ([Retry("a"), Retry("b", 30)], 30.0), ([Retry("a", 0), Retry("b")], 0.0)],
)
def test_of_two_that_wait_the_longer_decides(errors: list[BaseException], after_s: float) -> None:
    assert raised(group(*errors)).after_s == after_s


def test_circles_and_depths_end() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert speaking(one) == (one, 1)
    assert not holds(one, MemoryError)
    deep: BaseException = DOWN
    for _ in range(5000):
        deep = caused(RuntimeError("wrapped"), deep)
    assert speaking(deep)[0] is DOWN
    nested: BaseException = DOWN
    for _ in range(500):
        nested = group(nested)
    assert raised(nested).said is Said.FAILED
    wide = group(*[ValueError(str(number)) for number in range(50_000)], DOWN)
    assert raised(wide).said is Said.FAILED  # it would take too long to look at all of them
    shared = group(ValueError("x"))
    for _ in range(40):
        shared = group(caused(RuntimeError("a"), shared), caused(RuntimeError("b"), shared))
    assert raised(shared).said is Said.FAILED
    doubled = group(ValueError("x"))
    for _ in range(40):
        doubled = group(doubled, doubled)
    assert raised(doubled).said is Said.FAILED


def test_a_group_of_a_class_that_fails_itself_is_a_failure() -> None:
    class Odd(ExceptionGroup[Exception]):
        @property
        def exceptions(self) -> tuple[Exception, ...]:
            raise RuntimeError("no")

    assert raised(Odd("odd", [ValueError("x")])).error_type == "Odd"


def test_the_traceback_shows_the_error_that_counts() -> None:
    def fail() -> None:
        raise ConnectionError("refused")

    try:
        fail()
    except ConnectionError as error:
        answer = raised(group(error, *[ValueError("x" * 1000) for _ in range(14)]))
    assert "in fail" in answer.traceback
    assert answer.traceback.rstrip().endswith("ConnectionError: refused")


def test_the_same_failure_has_one_fingerprint_however_many_come_with_it() -> None:
    answers = [raised(group(ConnectionError("refused"), *[ValueError("x")] * count)) for count in range(3)]
    assert len({one.reason for one in answers}) == 3
    assert len({fingerprint(one.error_type, one.reason) for one in answers}) == 1


@pytest.mark.parametrize(
    "error",
    [
        Permanent("never"),
        Retry("again", 30),
        Snooze(5, "soon"),
        Superseded("newer"),
        DOWN,
        NameRefused("../x"),
        MessageRefused("invalid", "no name", ("name",)),
        ObjectMissing("a"),
        PreconditionFailed("a", 3),
        SettingsError(["a", "b"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_out_of_a_pool_of_processes_as_they_were(error: FanoutError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert (str(other), vars(other)) == (str(error), vars(error))
