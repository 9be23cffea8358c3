"""A lane's state between ticks, one JSON object in the bucket. It is only ever replaced at the generation that was read.

Planned, requested and observed stand apart in it: an intent's pending parts are planned, its launched parts are requested, and
`observed` is what Cloud Run has shown. Losing the state costs launches that are under way their protection, and what was learned;
the ledger is computed from executions and their workers' progress.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from batch.model.errors import FanoutError, ObjectMissing, PreconditionFailed
from batch.model.names import HISTORY_END, history_end_object, history_object, lane_state_object
from batch.services.ports import ObjectStore
from controller.act.intents import Intent, PartState
from controller.decide import rates
from controller.decide.decision import Decision, Kind, LastDecision, OpenLaunch, ends_of, has_failed, last_of, open_launch, to_json
from controller.decide.held_elsewhere import HeldElsewhere
from controller.decide.probe import Blind
from controller.decide.rates import Learned
from controller.decide.unassigned.doubt import Doubt
from controller.decide.unassigned.since import Waiting
from controller.model.execution import Worked
from controller.model.lane import Lane
from controller.model.plain import read, written
from controller.model.reading import FUTURE_S
from controller.model.schedule import Scheduled
from controller.observe import listing
from controller.observe.listing import Observed

FORMAT = 3
LAUNCHES_KEPT = 50
"""Launches whose end is awaited, the newest: of older ones nobody learns what became of them."""
LEDGER_ENTRIES_KEPT = 20
UNWRITTEN_KEPT = 20
ACCEPTED_KEPT_S = 900.0
"""Longer than any reading may be old: what was accepted before is in the gauge."""
POKES_KEPT = 500
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


_SELDOM: Mapping[str, Any] = {"scheduled": (), "elsewhere": None, "unwritten": (), "spent": (), "failed_launch_count": 0}
"""Fields that are left out where there is nothing to say."""


class StateConflict(FanoutError):
    """Another controller has changed the lane's state since it was read: stand down, it has decided for this tick."""

    def __init__(self, lane: str) -> None:
        super().__init__(f"the state of lane {lane} was changed by another controller; this one stands down until the next tick")


class StateUnreadable(FanoutError):
    """The state object is not what a controller writes."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Cloud Run refused `count` launches in a row because there were too many: none is tried before `until` (Unix seconds). The last of
    them would have started `workers` more."""

    until: float
    count: int
    reason: str
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Unwritten:
    """An object of the lane's history, by its name: a decision, or what became of a launch."""

    name: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LaneState:
    """`epoch` rises with every write. `last` is the newest decision of the lane's history, `launches` are those whose end is awaited,
    `launched_at` (Unix seconds) is when the last launch that is no intent any more was saved, `unwritten` what the history has yet to be
    given: it is saved first, with what it tells of. `accepted` are (Unix seconds, count) of tasks that the
    front door accepted, `pokes` the ids of the pokes that said so. `waiting`: since when messages wait that nobody has.
    `learned` comes from finished workers; `blind`: the gauge has not been readable for a while. `scheduled`: what is known of
    schedules; `elsewhere`: of messages that another consumer holds; `doubt`: of how late the gauge is. `spent` are the hours (Unix seconds
    of their beginning) in which launches ended, each with the dollars that those cost, of the last day; `failed_launch_count` launches
    ended with failed workers since the last that did not."""

    lane: str
    intents: tuple[Intent, ...] = ()
    last: LastDecision | None = None
    launches: tuple[OpenLaunch, ...] = ()
    launched_at: float | None = None
    unwritten: tuple[Unwritten, ...] = ()
    observed: Observed = field(default_factory=Observed)
    accepted: tuple[tuple[float, int], ...] = ()
    pokes: tuple[str, ...] = ()
    backoff: Backoff | None = None
    waiting: Waiting = field(default_factory=Waiting)
    learned: Learned = field(default_factory=Learned)
    blind: Blind | None = None
    scheduled: tuple[Scheduled, ...] = ()
    elsewhere: HeldElsewhere | None = None
    doubt: Doubt = field(default_factory=Doubt)
    spent: tuple[tuple[float, float], ...] = ()
    failed_launch_count: int = 0
    epoch: int = 0

    @property
    def last_launch_at(self) -> float | None:
        """When (Unix seconds) the last launch was saved of which Cloud Run did not refuse all; None: there was none."""
        saved = [one.saved_at for one in self.intents if any(part.state is not PartState.REFUSED for part in one.parts)]
        return max([*saved, *([] if self.launched_at is None else [self.launched_at])], default=None)

    def with_decision(self, decision: Decision, object_id: str) -> LaneState:
        """The newest decision, which the history is to be given as `object_id`. The end of a launch is awaited from now on."""
        launches = (*self.launches, open_launch(decision))[-LAUNCHES_KEPT:] if decision.kind is Kind.LAUNCH else self.launches
        name = history_object(self.lane, decision.decided_at, object_id)
        return replace(self, last=last_of(decision), launches=launches).with_unwritten([Unwritten(name, _bounded(to_json(decision)))])

    def with_unwritten(self, more: Sequence[Unwritten]) -> LaneState:
        """More for the history; of what it could not be given for long, the newest stay."""
        return replace(self, unwritten=(*self.unwritten, *more)[-UNWRITTEN_KEPT:]) if more else self

    def compared(self, executions: Sequence[Worked], lane: Lane, now: float) -> LaneState:
        """Launches whose executions have all ended are not awaited any more, and the history is to be told what became of them; nor are
        those of which Cloud Run started nothing. What they cost counts as spent in the hour of `now` (Unix seconds)."""
        nothing = (PartState.REFUSED, PartState.ABANDONED)
        over = {one.decision_id for one in self.intents if all(part.state in nothing for part in one.parts)}
        awaited = [one for one in self.launches if one.decision_id not in over]
        ends = ends_of(awaited, executions, lane)
        if not ends and len(awaited) == len(self.launches):
            return self
        told = [
            Unwritten(history_end_object(self.lane, one.decided_at, one.decision_id), ends[one.decision_id])
            for one in awaited
            if one.decision_id in ends
        ]
        state = replace(self, launches=tuple(one for one in awaited if one.decision_id not in ends)).with_unwritten(told)
        failed_count = self.failed_launch_count
        for name in (one.decision_id for one in awaited if one.decision_id in ends):
            failed = has_failed(name, executions)
            failed_count = failed_count if failed is None else (failed_count + 1) * failed
        usd = sum(end["actual_cost_usd"] for end in ends.values())
        return replace(state, failed_launch_count=failed_count, spent=_spent(self.spent, usd, now))

    def spent_usd(self, now: float) -> float:
        """Dollars that launches cost which ended in the last day, in whole hours."""
        return sum(usd for hour, usd in self.spent if hour > now - DAY_S)

    def ends_after(self, before: LaneState) -> list[Mapping[str, Any]]:
        """What the history is to be told of ends of launches, and was not yet in `before`."""
        known = {one.name for one in before.unwritten}
        return [one.body for one in self.unwritten if one.name.endswith(HISTORY_END) and one.name not in known]

    def with_intent(self, intent: Intent) -> LaneState:
        """The intent added, or put in place of the one with its id."""
        others = [one for one in self.intents if one.decision_id != intent.decision_id]
        return replace(self, intents=(*others, intent))

    def with_accepted(self, at: float, count: int, poke: str = "") -> LaneState:
        """`count` tasks were accepted at `at` (Unix seconds); unchanged if a poke with this id was counted already. Counts of one second
        are one mark, at its beginning."""
        if poke and poke in self.pokes:
            return self
        marks = dict(self.accepted)
        second = float(int(at))
        marks[second] = marks.get(second, 0) + count
        pokes = (*self.pokes, poke)[-POKES_KEPT:] if poke else self.pokes
        return replace(self, accepted=_recent(marks.items(), max(marks)), pokes=pokes)

    def pruned(self, now: float) -> LaneState:
        """Without what was accepted so long ago that the gauge counts it, or in the future, by a clock that was wrong."""
        accepted = tuple(mark for mark in _recent(self.accepted, now) if mark[0] <= now + FUTURE_S)
        return self if accepted == self.accepted else replace(self, accepted=accepted)


def _spent(before: Sequence[tuple[float, float]], usd: float, now: float) -> tuple[tuple[float, float], ...]:
    hours = {hour: one for hour, one in before if now - DAY_S < hour <= now}
    this = now - now % HOUR_S
    hours[this] = round(hours.get(this, 0.0) + usd, 6)
    return tuple(sorted(hours.items()))


def _bounded(decision: dict[str, Any]) -> dict[str, Any]:
    """Of a long ledger the first entries."""
    ledger = decision.get("ledger")
    if not ledger or (left_out_count := len(ledger["entries"]) - LEDGER_ENTRIES_KEPT) <= 0:
        return decision
    entries = ledger["entries"][:LEDGER_ENTRIES_KEPT]
    return {**decision, "ledger": {**ledger, "entries": entries, "entries_left_out_count": left_out_count}}


def accepted_since(state: LaneState, sampled_at: float) -> int:
    """Tasks accepted after a sample (Unix seconds). What was accepted in its second is left out: the reading may count it."""
    return sum(count for at, count in state.accepted if at > sampled_at)


def _recent(marks: Iterable[tuple[float, int]], now: float) -> tuple[tuple[float, int], ...]:
    return tuple(sorted((at, count) for at, count in marks if at >= now - ACCEPTED_KEPT_S))


@dataclass(frozen=True, slots=True)
class Stored:
    """A state and the generation of its object; 0: there is no object yet."""

    state: LaneState
    generation: int


def load(store: ObjectStore, lane: str, known: Stored | None = None) -> Stored:
    """The lane's state; an empty one when it was never written; `known` where that is what stands there still. Raises StateUnreadable,
    DependencyError."""
    name = lane_state_object(lane)
    try:
        data, info = store.read_with_info(name)
    except ObjectMissing:
        return Stored(LaneState(lane), 0)
    if known is not None and known.generation == info.generation:
        return known
    try:
        body = json.loads(data)
        newer = isinstance(body, dict) and isinstance(body.get("format"), int) and body["format"] > FORMAT
        if not newer:
            return Stored(_decoded(lane, body), info.generation)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        why = repr(error)[:300]
        raise StateUnreadable(f"object {name} is not a lane's state ({why}): delete it to start afresh") from error
    raise StateUnreadable(
        f"object {name} is of a newer controller (format {body['format']}, this one knows {FORMAT}), which has the lane: update this one"
    )


def save(store: ObjectStore, state: LaneState, generation: int, token: str) -> Stored:
    """Replace the state that stands at `generation`, one epoch later; returns what stands then. Raises StateConflict, DependencyError.

    `token` is new for each call: it tells our own write, whose answer was lost, from another controller's.
    """
    name = lane_state_object(state.lane)
    state = replace(state, epoch=state.epoch + 1)
    data = json.dumps(_encoded(state), separators=(",", ":")).encode()
    try:
        info = store.write(name, data, content_type="application/json", metadata={"saved_by": token}, if_generation=generation)
    except PreconditionFailed as error:
        found = store.info(name)
        if found is None or found.metadata.get("saved_by") != token:
            raise StateConflict(state.lane) from error
        info = found
    return Stored(state, info.generation)


def _encoded(state: LaneState) -> dict[str, Any]:
    body = {"format": FORMAT, **written(replace(state, learned=Learned())), "learned": rates.to_json(state.learned)}
    return {name: value for name, value in body.items() if value or name not in _SELDOM}


def _decoded(lane: str, body: Mapping[str, Any]) -> LaneState:
    if body["format"] != FORMAT:
        raise ValueError(f"format {body['format']!r}, this controller knows {FORMAT}")
    checked = {"observed": listing.from_json(body["observed"]), "learned": rates.from_json(body["learned"])}
    return read(LaneState, {**_SELDOM, "doubt": Doubt(), "waiting": Waiting(), **body, "lane": lane, **checked})
