"""Pokes: the front door reports what it accepted, so that a lane starts before the gauge shows it. Values, and how they are read.

A poke is a hint. A lost one costs the time until the gauge shows the messages; a wrong or forged one costs the workers that the lane's caps
allow, once, until the next reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch.model.clock import is_time
from batch.model.errors import FanoutError
from controller.model.lane import Lane

MAX_BODY_BYTES = 64 * 1024
MAX_POKES = 100
MAX_COUNT = 1_000_000
"""Of one poke. A front door publishes at most 1,000 messages a request."""
OLD_S = 120.0
"""Maximum age of a poke: an older one is not worth its risk, because the gauge shows its messages by then."""
AHEAD_S = 30.0
"""By how much the front door's clock may be ahead."""
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_FIELDS = frozenset({"id", "lane", "topic", "accepted_count", "at"})


class PokesRefused(FanoutError):
    """What was posted is not a list of pokes; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Poke:
    """`accepted_count` tasks were published to `topic`, the first of them not before `at` (Unix seconds). `lane` is the front door's name
    of the lane; either may be empty."""

    poke_id: str
    lane: str
    topic: str
    accepted_count: int
    at: float


def read_pokes(body: bytes, now: float) -> list[Poke]:
    """The pokes of a request's body, received at `now` (Unix seconds). Raises PokesRefused with the first problem."""
    if len(body) > MAX_BODY_BYTES:
        raise PokesRefused(f"the body has {len(body)} bytes, at most {MAX_BODY_BYTES}")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PokesRefused("the body is not JSON") from error
    if not isinstance(given, Mapping) or not isinstance(given.get("pokes"), list) or len(given) != 1:
        raise PokesRefused('the body must be {"pokes": [{"id", "topic" or "lane", "accepted_count", "at"}, …]}')
    if len(given["pokes"]) > MAX_POKES:
        raise PokesRefused(f"{len(given['pokes'])} pokes, at most {MAX_POKES} in a request")
    return [_poke(one, f"pokes[{position}]", now) for position, one in enumerate(given["pokes"])]


def _poke(given: Any, path: str, now: float) -> Poke:
    if not isinstance(given, Mapping) or not set(given) <= _FIELDS:
        raise PokesRefused(f"{path} must be an object with {', '.join(sorted(_FIELDS))} and nothing else")
    poke_id, count, at = given.get("id"), given.get("accepted_count"), given.get("at")
    lane, topic = (_name(given.get(key, ""), f"{path}.{key}") for key in ("lane", "topic"))
    if not lane and not topic:
        raise PokesRefused(f"{path} names neither topic nor lane")
    if not isinstance(poke_id, str) or not _ID.fullmatch(poke_id):
        raise PokesRefused(f"{path}.id must be 8 to 64 letters, digits, '_' or '-', new for every poke")
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_COUNT:
        raise PokesRefused(f"{path}.accepted_count must be a whole number from 0 to {MAX_COUNT}")
    if not is_time(at):
        raise PokesRefused(f"{path}.at must be the time in Unix seconds")
    if not now - OLD_S <= at <= now + AHEAD_S:
        raise PokesRefused(f"{path}.at is {at - now:+.0f} s from now, allowed are -{OLD_S:.0f} to +{AHEAD_S:.0f}: compare the clocks")
    return Poke(poke_id, lane, topic, count, float(min(at, now)))


def _name(given: Any, path: str) -> str:
    if not isinstance(given, str) or len(given) > 255:
        raise PokesRefused(f"{path} must be a short text")
    return given


def lane_for(poke: Poke, lanes: Sequence[Lane]) -> Lane | None:
    """The lane that drains what a poke reports. The topic decides; the name decides between lanes of one topic, or if there is no topic.
    None: there is no such lane, or more than one may be meant."""
    found = [lane for lane in lanes if not poke.topic or lane.topic == poke.topic]
    if not poke.topic or len(found) > 1:
        found = [lane for lane in found if lane.name == poke.lane]
    return found[0] if len(found) == 1 else None
