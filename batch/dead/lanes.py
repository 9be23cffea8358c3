"""Every lane's subscription, topic and retry rules, as the controller writes them down for what serves several lanes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batch.dead.rules import Rules
from batch.model.errors import ObjectDamaged, ObjectMissing
from batch.model.names import LANES
from batch.services.ports import ObjectStore


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """`subscription` and `topic` are short names."""

    name: str
    subscription: str
    topic: str
    rules: Rules


def read_lanes(store: ObjectStore) -> dict[str, LaneFacts]:
    """By name; empty before the first tick. Raises ObjectDamaged, DependencyError."""
    try:
        body = json.loads(store.read(LANES))
        return {name: _facts(name, one) for name, one in body["lanes"].items()}
    except ObjectMissing:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"object {LANES} is not what a controller writes ({error!r:.200})"
        raise ObjectDamaged(f"{what}: delete it, and the next tick writes it") from error


def write_lanes(store: ObjectStore, lanes: Mapping[str, LaneFacts]) -> bool:
    """Whether they were not yet there as they are. Raises DependencyError."""
    try:
        if read_lanes(store) == lanes:
            return False
    except ObjectDamaged:
        pass  # replaced
    body = {"lanes": {name: {**asdict(one), "rules": asdict(one.rules)} for name, one in sorted(lanes.items())}}
    store.write(LANES, json.dumps(body, indent=1).encode() + b"\n", content_type="application/json")
    return True


def _facts(name: str, body: Mapping[str, Any]) -> LaneFacts:
    rules = body["rules"]
    errors = tuple(str(one) for one in rules["errors"])
    found = Rules(errors, float(rules["after_s"]), int(rules["times"]), float(rules["rate"]))
    return LaneFacts(name, str(body["subscription"]), str(body["topic"]), found)
