"""A lane's state between ticks, one JSON object in the bucket. It is only ever replaced at the generation that was read.

Planned, requested and observed stand apart in it: an intent's pending parts are planned, its launched parts are requested, and
`observed` is what Cloud Run has shown. Losing the state costs launches that are under way their protection, and what was learned;
the ledger is computed from executions and their workers' progress.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from batch.model.errors import FanoutError, ObjectMissing, PreconditionFailed
from batch.model.names import lane_state_object
from batch.services.ports import ObjectStore
from controller.act.intents import Intent
from controller.decide import rates
from controller.decide.held_elsewhere import HeldElsewhere
from controller.decide.probe import Blind
from controller.decide.rates import Learned
from controller.decide.unassigned.doubt import Doubt
from controller.decide.unassigned.since import Waiting
from controller.model.plain import read
from controller.model.reading import FUTURE_S
from controller.model.schedule import Scheduled
from controller.observe import listing
from controller.observe.listing import Observed

FORMAT = 2
DECISIONS_KEPT = 50
LEDGER_ENTRIES_KEPT = 20
ACCEPTED_KEPT_S = 900.0
"""Longer than any reading may be old: what was accepted before is in the gauge."""
POKES_KEPT = 500


class StateConflict(FanoutError):
    """Another controller has changed the lane's state since it was read: stand down, it has decided for this tick."""

    def __init__(self, lane: str) -> None:
        super().__init__(f"the state of lane {lane} was changed by another controller; this one stands down until the next tick")


class StateUnreadable(FanoutError):
    """The state object is not what a controller writes."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Cloud Run refused `count` launches in a row because there were too many: none is tried before `until` (Unix seconds)."""

    until: float
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class LaneState:
    """`epoch` rises with every write. `decisions` are plain JSON, oldest first. `accepted` are (Unix seconds, count) of tasks that the
    front door accepted, `pokes` the ids of the pokes that said so. `waiting`: since when messages wait that nobody has.
    `learned` comes from finished workers; `blind`: the gauge has not been readable for a while. `scheduled`: what is known of
    schedules; `elsewhere`: of messages that another consumer holds; `doubt`: of how late the gauge is."""

    lane: str
    intents: tuple[Intent, ...] = ()
    decisions: tuple[Mapping[str, Any], ...] = ()
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
    epoch: int = 0

    def with_decision(self, decision: Mapping[str, Any]) -> LaneState:
        """The newest decision added; only the last 50 stay, and of a long ledger the first entries."""
        ledger = decision.get("ledger")
        if isinstance(ledger, Mapping) and (left_out_count := len(ledger.get("entries", ())) - LEDGER_ENTRIES_KEPT) > 0:
            entries = ledger["entries"][:LEDGER_ENTRIES_KEPT]
            decision = {**decision, "ledger": {**ledger, "entries": entries, "entries_left_out_count": left_out_count}}
        return replace(self, decisions=(*self.decisions, decision)[-DECISIONS_KEPT:])

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


def load(store: ObjectStore, lane: str) -> Stored:
    """The lane's state; an empty one when it was never written. Raises StateUnreadable, DependencyError."""
    name = lane_state_object(lane)
    try:
        data, info = store.read_with_info(name)
    except ObjectMissing:
        return Stored(LaneState(lane), 0)
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
    body = {"format": FORMAT, **asdict(state), "learned": rates.to_json(state.learned)}
    # A lane that has none of these is written as it was before there were any.
    return {name: value for name, value in body.items() if value or name not in ("scheduled", "elsewhere")}


def _decoded(lane: str, body: Mapping[str, Any]) -> LaneState:
    if body["format"] != FORMAT:
        raise ValueError(f"format {body['format']!r}, this controller knows {FORMAT}")
    checked = {"observed": listing.from_json(body["observed"]), "learned": rates.from_json(body["learned"])}
    return read(LaneState, {"scheduled": (), "elsewhere": None, "doubt": Doubt(), "waiting": Waiting(), **body, "lane": lane, **checked})
