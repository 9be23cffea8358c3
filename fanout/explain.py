"""`fanout explain`: why the controller did what it did, from the history of the lane's decisions."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from batch.model.clock import from_iso, iso
from batch.model.errors import FanoutError, SettingsError
from batch.services.ports import ObjectStore
from controller.act.history import Kept, kept_after, kept_newest, read_kept
from controller.act.intents import Intent, PartState
from controller.act.state import LaneState, load
from controller.config import ControllerSettings
from controller.decide.decision import from_json
from controller.decide.explanation import explained_decision
from controller.lanes.lanes import lanes_named
from controller.model.wording import duration, spoken
from controller.tick.outside import Outside
from fanout import cloud
from fanout.output import EXIT_FINE, EXIT_TROUBLE, show_json, tell

DAY_S = 86_400.0
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
_MOMENTS = "a time such as 2026-01-31T03:10, 03:10 (the last one, UTC), or 2h (that long ago)"


@dataclass(frozen=True, slots=True)
class Explanation:
    """`decision` is as it was kept, or None where there is none; `problem` then says why. Times are Unix seconds."""

    lane: str
    decision: Mapping[str, Any] | None = None
    lines: tuple[str, ...] = ()
    next_at: float | None = None
    problem: str = ""


@click.command()
@click.argument("lanes", nargs=-1)
@click.option(
    "--at", "at_text", metavar="TIME", default="", help="The last decision up to then: 2026-01-31T03:10, 03:10 (UTC), or 2h (ago)."
)
@cloud.as_json_option
@cloud.with_settings
def command(lanes: tuple[str, ...], at_text: str, as_json: bool, settings: ControllerSettings) -> None:
    """Explain the last decision that the controller made for LANES, or for all.

    The controller keeps the decisions of a lane in the bucket: each launch, and each other decision that says something new, not only
    other numbers. What a tick would decide now is told by `fanout plan`. Ends with 1 when a lane has no decision from before TIME.

    \b
    fanout explain
    fanout explain default --at 03:10
    fanout explain default --at 2h --json

    JSON: explanations (lane, decision, lines, next_decided_at, problem). The decision is as `fanout tick --json` has it.
    """
    with cloud.connected(settings) as outside:
        found = explanations(outside, lanes, at_text)
    if as_json:
        show_json({"explanations": [explanation_json(one) for one in found]})
    else:
        for one in found:
            tell(*(one.lines or (f"lane {one.lane}: {one.problem}",)))
    if not found:
        click.echo(f"Error: {cloud.no_lane(settings)}", err=True)
    sys.exit(EXIT_TROUBLE if not found or any(one.problem for one in found) else EXIT_FINE)


def explanations(outside: Outside, names: Sequence[str], at_text: str) -> list[Explanation]:
    """Raises SettingsError, DependencyError."""
    now = outside.clock.now()
    try:
        at = moment(at_text, now) if at_text else now
    except ValueError as error:
        raise SettingsError([f"--at {at_text!r}: {error}"]) from error
    found: list[Explanation] = []
    for lane in lanes_named(outside.runner.jobs(), names, outside.home):
        try:
            found.append(explanation(outside.store, load(outside.store, lane.name).state, at, now))
        except FanoutError as error:
            found.append(Explanation(lane.name, problem=str(error)))
    return found


def explanation(store: ObjectStore, state: LaneState, at: float, now: float) -> Explanation:
    """Explains the newest decision that is not younger than `at` (Unix seconds). Raises DependencyError."""
    damaged: list[str] = []
    kept = kept_newest(store, state.lane, 1, at)
    decision = next(iter(read_kept(store, kept, damaged.append)), None)
    if damaged and decision is None:
        return Explanation(state.lane, problem=f"{damaged[0]}; --at with an earlier time explains the decision before it")
    next_at = _decided_at(store, kept_after(store, state.lane, kept[0] if kept else None))
    if decision is None:
        return Explanation(state.lane, problem=_none(state.lane, next_at, at))
    try:
        explained = from_json(decision)
        lines, decided_at = explained_decision(explained), explained.decided_at
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"object {kept[0].name} was written by another version and cannot be read ({error!r:.200}); see --json"
        return Explanation(state.lane, decision, next_at=next_at, problem=problem)
    when = f"  decided: {iso(decided_at)}, {spoken(max(0.0, now - decided_at))} ago; ages and counts below are as of then"
    after = f"  next: another decision at {iso(next_at)}" if next_at is not None else "  next: none is kept that is younger"
    launched = [line for intent in state.intents if intent.decision_id == decision.get("decision_id") for line in _launches(intent)]
    unwritten = f"  note: {len(state.unwritten)} of the history could not be written yet, the next tick tries again; see its notes"
    late = [unwritten] if state.unwritten else []
    return Explanation(state.lane, decision, (lines[0], when, *lines[1:], *launched, after, *late), next_at)


def explanation_json(one: Explanation) -> dict[str, Any]:
    return {
        "lane": one.lane,
        "decision": one.decision,
        "lines": list(one.lines),
        "next_decided_at": None if one.next_at is None else iso(one.next_at),
        "problem": one.problem or None,
    }


def _decided_at(store: ObjectStore, kept: Kept | None) -> float | None:
    """When (Unix seconds) it was decided; None where there is none, or its time cannot be read."""
    try:
        return from_iso(str(read_kept(store, [kept])[0]["decided_at"])) if kept is not None else None
    except (IndexError, KeyError, ValueError):
        return None


def _none(lane: str, oldest_at: float | None, at: float) -> str:
    if oldest_at is None:
        return f"no decision is kept: no tick has decided for it yet; `fanout plan {lane}` says what one would do"
    return f"no decision is kept from before {iso(at)}; the oldest is of {iso(oldest_at)}; older ones may be in the controller's log"


def _launches(intent: Intent) -> list[str]:
    told = {PartState.PENDING: "not confirmed yet", PartState.REFUSED: "refused", PartState.ABANDONED: "given up"}
    return [
        f"  launched {part.execution}"
        if part.state is PartState.LAUNCHED
        else f"  {part.decision_id} {told[part.state]}" + (f": {part.reason}" if part.reason else "")
        for part in intent.parts
    ]


def moment(text: str, now: float) -> float:
    """Unix seconds of a moment as people write it. A time without a zone is UTC. Raises ValueError with what is allowed."""
    text = text.strip()
    try:
        if _TIME_OF_DAY.fullmatch(text):
            at = from_iso(f"{iso(now)[:10]}T{text.zfill(8 if text.count(':') == 2 else 5)}")
            return at if at <= now else at - DAY_S
        return now - duration(text) if text[-1:] in "smhd" and text else from_iso(text)
    except (ValueError, OverflowError):
        raise ValueError(_MOMENTS) from None
