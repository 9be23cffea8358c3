"""A lane's state between ticks, one JSON object in the bucket. It is only ever replaced at the generation that was read.

It holds what cannot be read anywhere else: intents, recent decisions, which executions were alive, and what was learnt. Losing
it costs nothing but those: the ledger is computed from executions and their workers' progress.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batch.errors import FanoutError, ObjectMissing, PreconditionFailed
from batch.names import lane_state_object
from batch.objects import ObjectStore
from controller import intents
from controller.intents import Intent, finite

_EXECUTION = re.compile(r"projects/[^/]+/locations/[^/]+/jobs/[^/]+/executions/[^/]+")
FORMAT = 1
DECISIONS_KEPT = 50


class StateConflict(FanoutError):
    """Another controller has changed the lane's state since it was read: stand down, it has decided for this tick."""

    def __init__(self, lane: str) -> None:
        super().__init__(f"the state of lane {lane} was changed by another controller; this one stands down until the next tick")


class StateUnreadable(FanoutError):
    """The state object is not what a controller writes."""


@dataclass(frozen=True, slots=True)
class LaneState:
    """`decisions` are plain JSON, oldest first; `watched` the full names of executions that were alive when it was written."""

    lane: str
    intents: tuple[Intent, ...] = ()
    decisions: tuple[Mapping[str, Any], ...] = ()
    watched: tuple[str, ...] = ()
    seconds_per_message: float | None = None

    def with_decision(self, decision: Mapping[str, Any]) -> LaneState:
        """The newest decision added; only the last 50 stay."""
        return replace(self, decisions=(*self.decisions, decision)[-DECISIONS_KEPT:])

    def with_intent(self, intent: Intent) -> LaneState:
        """The intent added, or put in place of the one with its id."""
        others = [one for one in self.intents if one.decision_id != intent.decision_id]
        return replace(self, intents=(*others, intent))


@dataclass(frozen=True, slots=True)
class Saved:
    """A state and the generation that it stands at; 0: there is no object yet."""

    state: LaneState
    generation: int


def load(store: ObjectStore, lane: str) -> Saved:
    """The lane's state; an empty one when it was never written. Raises StateUnreadable, DependencyError."""
    name = lane_state_object(lane)
    try:
        data, info = store.read_with_info(name)
    except ObjectMissing:
        return Saved(LaneState(lane), 0)
    try:
        return Saved(_decoded(lane, json.loads(data)), info.generation)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        why = repr(error)[:300]
        raise StateUnreadable(f"object {name} is not a lane's state ({why}): delete it to start afresh") from error


def save(store: ObjectStore, state: LaneState, generation: int, token: str) -> int:
    """Replace the state that stands at `generation`; returns the new generation. Raises StateConflict, DependencyError.

    `token` is new for each call: it tells our own write, whose answer was lost, from another controller's.
    """
    name = lane_state_object(state.lane)
    data = json.dumps(_encoded(state), separators=(",", ":")).encode()
    try:
        return store.write(name, data, content_type="application/json", metadata={"saved_by": token}, if_generation=generation).generation
    except PreconditionFailed as error:
        found = store.info(name)
        if found is not None and found.metadata.get("saved_by") == token:
            return found.generation
        raise StateConflict(state.lane) from error


def _encoded(state: LaneState) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "lane": state.lane,
        "intents": [intents.to_json(intent) for intent in state.intents],
        "decisions": list(state.decisions),
        "watched": list(state.watched),
        "seconds_per_message": state.seconds_per_message,
    }


def _decoded(lane: str, body: Mapping[str, Any]) -> LaneState:
    if body["format"] != FORMAT:
        raise ValueError(f"format {body['format']!r}, this controller knows {FORMAT}")
    seconds = body["seconds_per_message"]
    return LaneState(
        lane=lane,
        intents=tuple(intents.from_json(intent) for intent in body["intents"]),
        decisions=tuple(dict(decision) for decision in body["decisions"]),
        watched=tuple(_execution(name) for name in body["watched"]),
        seconds_per_message=None if seconds is None else finite(seconds),
    )


def _execution(name: object) -> str:
    if not isinstance(name, str) or not _EXECUTION.fullmatch(name):
        raise ValueError(f"{name!r} is not the full name of an execution")
    return name
