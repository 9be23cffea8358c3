"""Every lane's subscription, topic, retry rules and size of worker, as the controller writes them down for what serves several lanes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from batch.dead.rules import NO_RULES, Rules
from batch.formats.forms import Forms
from batch.formats.kinds import ENVELOPE
from batch.model.errors import ObjectDamaged, ObjectMissing
from batch.model.names import LANES
from batch.prices import LIST_PERCENT
from batch.services.ports import ObjectStore


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """`subscription` and `topic` are short names. `vcpu` and `memory_gib` of a worker are 0 where they are not known; it costs
    `price_percent` of the list price."""

    name: str
    subscription: str
    topic: str
    rules: Rules
    vcpu: float = 0.0
    memory_gib: float = 0.0
    accept: tuple[str, ...] = (ENVELOPE,)
    default_type: str = ""
    event_types: tuple[str, ...] = ("OBJECT_FINALIZE",)
    price_percent: float = LIST_PERCENT

    @property
    def forms(self) -> Forms:
        """Those of its messages."""
        return Forms(self.accept, self.default_type, self.event_types, self.subscription)


_ENVELOPES = (ENVELOPE,), ("OBJECT_FINALIZE",)
"""Of lanes that were written down before there were others."""
UNKNOWN_LANE = "unknown"
"""Whose log holds the dead letters of no lane."""


def without_topic(name: str) -> LaneFacts:
    """A log of dead letters whose lane is not known, or is one no more: they can be replayed to another lane."""
    return LaneFacts(name, "", "", NO_RULES)


def read_lanes(store: ObjectStore) -> dict[str, LaneFacts]:
    """By name; empty before the first tick. Raises ObjectDamaged, DependencyError."""
    try:
        body = json.loads(store.read(LANES))
        return {name: _facts(name, one) for name, one in body["lanes"].items()}
    except ObjectMissing:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"object {LANES} is not what a controller writes ({error!r:.200})"
        raise ObjectDamaged(f"{what}: delete it, and a tick writes it within ten minutes") from error


def write_lanes(store: ObjectStore, lanes: Mapping[str, LaneFacts], *, keep_others: bool = False) -> bool:
    """Whether they were not yet there as they are. `keep_others`: lanes that are there and not in `lanes` stay. Raises DependencyError."""
    known: Mapping[str, LaneFacts] | None = None
    with suppress(ObjectDamaged):  # replaced
        known = read_lanes(store)
    wanted = {**(known or {}), **lanes} if keep_others else lanes
    if known == wanted:
        return False
    body = {"lanes": {name: asdict(one) for name, one in sorted(wanted.items())}}
    store.write(LANES, json.dumps(body, indent=1).encode() + b"\n", content_type="application/json")
    return True


def _facts(name: str, body: Mapping[str, Any]) -> LaneFacts:
    rules = body["rules"]
    errors = tuple(str(one) for one in rules["errors"])
    found = Rules(errors, float(rules["after_s"]), int(rules["times"]), float(rules["rate"]))
    size = float(body.get("vcpu", 0.0)), float(body.get("memory_gib", 0.0))
    accept, event_types = (tuple(map(str, body[one])) for one in ("accept", "event_types")) if "accept" in body else _ENVELOPES
    default_type, percent = str(body.get("default_type", "")), float(body.get("price_percent", LIST_PERCENT))
    return LaneFacts(name, str(body["subscription"]), str(body["topic"]), found, *size, accept, default_type, event_types, percent)
