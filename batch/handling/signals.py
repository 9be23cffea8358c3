"""Which error speaks for a handler: the one that it raised, or one inside it. Task groups and wrappers hide what was meant.

The rule, from the outside to the inside:

1. The outermost error of ours is the handler's last word (`Permanent`, `Retry`, `Snooze`, `Superseded`, `Cancelled`, a `DependencyError`,
   `NameRefused`, `MessageRefused`), whatever it was raised from: `except DependencyError: raise Permanent(...)` is dead.
2. Any other error says what its cause says (`raise RuntimeError(...) from error`).
3. Without a cause it says what it was raised in the middle of, if that is a DependencyError: the service was down, whatever went wrong
   afterwards. A signal counts there for nothing: the handler had dealt with it, or failed while it was said (`finally`); that is a failed
   attempt, and the next run says it again. `from None` cuts here.
4. Of the errors in a group the one decides that loses least and hides least:
   a DependencyError (no attempt is spent, and the next run shows what the others say: no task is dead because a service was down);
   `Superseded` and `Cancelled` (a newer task owns the output, or a client has cancelled this one: nothing that failed beside it is needed
   any more);
   `Permanent`, `NameRefused`, `MessageRefused` (never is never, whatever else failed);
   `Retry` (a failed attempt, with the wait that was asked for); any other error; `Snooze` last: it spends no attempt, so a mistake beside
   it would come back for ever. Of two alike the longer wait, then the first. What asyncio only cancelled says nothing.

If none of ours decides, the error itself is the failure, and of a group its first real error.
"""

from __future__ import annotations

import re
from asyncio import CancelledError
from itertools import islice

from batch.model.errors import Cancelled, DependencyError, HandlerSignal, MessageRefused, NameRefused, Permanent, Retry, Snooze, Superseded

OURS = (HandlerSignal, DependencyError, NameRefused, MessageRefused)
_IN_GROUPS: tuple[type[BaseException] | tuple[type[BaseException], ...], ...] = (
    DependencyError,
    (Superseded, Cancelled),
    (Permanent, NameRefused, MessageRefused),
    Retry,
)
"""Of several, the first that is there decides; then other errors, then Snooze."""
OF_SEVERAL = "(one of {} errors)"
"""Ends the reason where a group held more than one."""
_OF_SEVERAL = re.compile(r" \(one of \d+ errors\)$")
MAX_DEPTH = 50
"""Groups in groups; deeper ones count as one error."""
MAX_ERRORS = 10_000
"""More are not looked at."""


def speaking(error: BaseException) -> tuple[BaseException, int]:
    """The error that speaks for a handler which has raised `error`, and out of how many in a group it was chosen. Never raises."""
    try:
        if isinstance(error, (*OURS, CancelledError)):
            return error, 1  # a cancelled handler was told to end: what it was doing then says nothing
        look = _Look()
        said = look.said(error)
        real, count = look.real(error)
        return real if said is None else said, max(1, count)
    except BaseException:  # noqa: BLE001 - attributes of an error may be user code
        return error, 1


def alone(reason: str) -> str:
    """A reason without how many errors there were: the same failure may come with others or without."""
    return _OF_SEVERAL.sub("", reason)


def holds(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an error is of this kind, or has one in a group, as its cause or in its context. Never raises."""
    try:
        return _holds(error, kind)
    except BaseException:  # noqa: BLE001 - attributes of an error may be user code
        return issubclass(type(error), kind)


def _holds(error: BaseException, kind: type[BaseException]) -> bool:
    todo, seen = [error], set[int]()
    while todo and len(seen) < MAX_ERRORS:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, kind):
            return True
        todo += [link for link in (one.__cause__, one.__context__) if link is not None]
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions
    return False


class _Look:
    """One look into an error. Each error is looked at once: chains may be circles."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bool], BaseException | None] = {}
        self._real: dict[int, tuple[BaseException, int]] = {}

    def said(self, error: BaseException, *, handled: bool = False, depth: int = 0) -> BaseException | None:
        """The error of ours that decides. `handled`: the way to it led through an error that was being handled."""
        one: BaseException | None = error
        while one is not None:
            key = (id(one), handled)
            if key in self._known or len(self._known) >= MAX_ERRORS:
                return self._known.get(key)
            self._known[key] = None
            if isinstance(one, OURS):
                self._known[key] = found = _counting(one, handled)
                return found
            if isinstance(one, BaseExceptionGroup) and depth < MAX_DEPTH:
                found = _counting(self._chosen(one, handled, depth + 1), handled)
                if found is not None:
                    self._known[key] = found
                    return found
            cause = one.__cause__
            handled = handled or cause is None
            one = cause if cause is not None or one.__suppress_context__ else one.__context__
        return None

    def _chosen(self, group: BaseExceptionGroup[BaseException], handled: bool, depth: int) -> BaseException:
        found = []
        for one in islice(group.exceptions, MAX_ERRORS):
            said = self.said(one, handled=handled, depth=depth)
            found.append(self.real(one)[0] if said is None else said)
        return min(found, key=_rank)

    def real(self, error: BaseException, depth: int = 0) -> tuple[BaseException, int]:
        """The first failure that a group holds, and how many; where there is none, what spends no attempt, or was only cancelled."""
        if not isinstance(error, BaseExceptionGroup) or depth >= MAX_DEPTH or len(self._real) >= MAX_ERRORS:
            return error, not isinstance(error, CancelledError)
        if id(error) not in self._real:
            inside = [self.real(one, depth + 1) for one in islice(error.exceptions, MAX_ERRORS)]
            first = min((one for one, _ in inside), key=lambda one: isinstance(one, Snooze) + 2 * isinstance(one, CancelledError))
            self._real[id(error)] = first, sum(count for _, count in inside)
        return self._real[id(error)]


def _counting(error: BaseException, handled: bool) -> BaseException | None:
    return error if isinstance(error, DependencyError if handled else OURS) else None


def _rank(error: BaseException) -> tuple[int, float]:
    after_s = getattr(error, "after_s", None) if isinstance(error, Retry | Snooze) else None
    rank = next((rank for rank, kinds in enumerate(_IN_GROUPS) if isinstance(error, kinds)), len(_IN_GROUPS))
    rank += isinstance(error, Snooze) + 2 * isinstance(error, CancelledError)
    return rank, -(after_s or 0.0)
