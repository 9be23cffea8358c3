"""Publishes delayed tasks again once they are due: read, publish, delete. Its one rule: nothing is deleted before the topic has it.

What was published and not deleted (the answer was lost, the controller was killed, two of them ticked at once) is published again: the
same task runs twice, and its output is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice

from batch.model.clock import Clock
from batch.model.delayed import as_outgoing, from_object
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyError, FanoutError, ObjectMissing, PreconditionFailed
from batch.model.names import damaged_object, delayed_folder, delayed_parts
from batch.services.ports import ObjectInfo, ObjectStore, Topic
from controller.act.cancelled import CancelledTasks, Found
from controller.model.together import together

MOST_S = 20.0
"""How long one tick of one lane republishes."""
REQUESTS_IN_FLIGHT = 16
MOST_PER_TICK = 2000
"""The rest waits for the next tick: a tick must be over before the next one begins."""
PORTION_COUNT = 500
PORTION_BYTES = 9_000_000


@dataclass(frozen=True, slots=True)
class Due:
    """An object below the lane's folder whose time has come. `due` is Unix seconds; None: its name is not one that a worker gives."""

    info: ObjectInfo
    due: int | None


def due_now(listed: Iterable[ObjectInfo], folder: str, now: float) -> Iterator[Due]:
    """The folder's objects that are due, of `listed` in the order of their names. It stops at the first that is not due: names sort by due
    time, so a lane with many delayed tasks costs one page of a listing."""
    for info in listed:
        if "/" in info.name.removeprefix(folder):
            continue  # damaged ones lie deeper, and a subscription may be called `damaged`
        parts = delayed_parts(info.name)
        if parts is not None and parts[0] > now:
            return
        yield Due(info, None if parts is None else parts[0])


def portions(due: Iterable[Due]) -> Iterator[list[Due]]:
    """Portions in order, each of as many as fit into one request and into memory. The first task goes alone: if it cannot be deleted once
    it is published, no more are, for they would all be published again at every tick."""
    portion: list[Due] = []
    total_bytes = 0
    most = 1
    for one in due:
        if portion and (len(portion) >= most or total_bytes + one.info.size > PORTION_BYTES):
            yield portion
            portion, total_bytes, most = [], 0, PORTION_COUNT
        portion.append(one)
        total_bytes += one.info.size
    if portion:
        yield portion


@dataclass(frozen=True, slots=True)
class Republished:
    """`count` tasks were published again (in a dry run: are due); `more`: others are due and wait for the next tick; `problems`: texts for
    the operator. `cancelled_count` tasks had been cancelled and ended instead."""

    count: int = 0
    more: bool = False
    problems: tuple[str, ...] = ()
    cancelled_count: int = 0


@dataclass(slots=True)
class Republisher:
    """One lane's delayed tasks in one tick. `topic` returns the lane's topic; it is called only when something is due. `cancelled` ends
    those that were cancelled; it is asked only when something is delayed."""

    subscription: str
    topic: Callable[[], Topic]
    store: ObjectStore
    clock: Clock
    cancelled: CancelledTasks | None = None
    _count: int = 0
    _problems: list[str] = field(default_factory=list)

    def run(self, *, dry_run: bool = False) -> Republished:
        """Publish what is due. Errors of services become problems; they are not raised, and what is not published stays where it is."""
        until_s = self.clock.monotonic() + MOST_S
        folder = delayed_folder(self.subscription)
        more = False
        try:
            listed = self.store.list(folder)
            first = next(listed, None)
            if first is None:
                return Republished()
            due = list(islice(due_now(chain((first,), listed), folder, self.clock.now()), MOST_PER_TICK + 1))
            more = len(due) > MOST_PER_TICK
            del due[MOST_PER_TICK:]
            if dry_run:
                return Republished(len(due), more)
            knows_cancelled = self._knows_cancelled()
            for portion in portions(due):
                if self.clock.monotonic() >= until_s:
                    more = True
                    break
                self._republish(portion)
            if self.cancelled is not None and knows_cancelled:
                self.cancelled.sweep(until_s)
        except FanoutError as error:
            self._problems.append(f"delayed tasks stay in {folder} until the next tick: {error}")
        return Republished(self._count, more, tuple(self._problems), self.cancelled.count if self.cancelled else 0)

    def _knows_cancelled(self) -> bool:
        """Whether the list of what was cancelled was read. Without it what is due goes back all the same: workers look at the list too."""
        try:
            problem = self.cancelled.look() if self.cancelled else ""
        except FanoutError as error:
            self._problems.append(f"what is cancelled is not known, so no delayed task ends by that: {error}")
            return False
        if problem:
            self._problems.append(problem)
        return True

    def _republish(self, portion: Sequence[Due]) -> None:
        """Raises DependencyError, and FanoutError for what a service refuses."""
        bodies = together(self._body, portion, REQUESTS_IN_FLIGHT, "delayed")
        ready: list[tuple[Due, Outgoing]] = []
        ended: list[Found] = []
        for one, body in zip(portion, bodies, strict=True):
            if body is None:
                continue  # another controller was faster
            try:
                if one.due is None:
                    raise ValueError("its name does not say when it is due")
                message = from_object(body)
                found = self.cancelled.found(one.info, message) if self.cancelled else None
                if found is None:
                    ready.append((one, as_outgoing(message, one.due)))
                else:
                    ended.append(found)
            except ValueError as error:
                self._set_aside(one, body, str(error))
        if self.cancelled and ended:
            self.cancelled.end(ended)
        if ready:
            published = self._publish(ready)
            self._count += len(published)
            self._delete(published)

    def _body(self, one: Due) -> bytes | None:
        try:
            return self.store.read(one.info.name)
        except ObjectMissing:
            return None

    def _publish(self, ready: Sequence[tuple[Due, Outgoing]]) -> list[Due]:
        """All in one request; if the topic refuses it, each by itself, so that one refused message delays no other."""
        topic = self.topic()
        try:
            topic.publish([message for _, message in ready])
            return [one for one, _ in ready]
        except DependencyError:
            raise
        except FanoutError as error:
            if len(ready) == 1:
                one, _ = ready[0]
                body = self._body(one)
                if body is not None:
                    self._set_aside(one, body, f"its topic refuses it: {error}")
                return []
        return [one for pair in ready for one in self._publish([pair])]

    def _delete(self, published: Sequence[Due]) -> None:
        try:
            together(self._delete_one, published, REQUESTS_IN_FLIGHT, "delayed")
        except FanoutError:
            self._problems.append(
                f"{published[0].info.name} or one after it is published and could not be deleted, it will be published again"
            )
            raise

    def _delete_one(self, one: Due) -> None:
        with suppress(PreconditionFailed):  # somebody replaced it meanwhile: what stands there now was not published
            self.store.delete(one.info.name, if_generation=one.info.generation)

    def _set_aside(self, one: Due, body: bytes, why: str) -> None:
        """A damaged object must not be read again at every tick, nor lost."""
        name = damaged_object(one.info.name)
        try:
            self.store.write(name, body, metadata={"why": why[:1000].encode("ascii", "replace").decode()})
            self._delete_one(one)
        except DependencyError:
            raise
        except FanoutError as error:
            self._problems.append(f"{one.info.name} cannot be published ({why}), nor moved aside: {error}")
        else:
            self._problems.append(f"{one.info.name} cannot be published ({why}); it is kept as {name}")
