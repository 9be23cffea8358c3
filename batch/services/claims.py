"""The claim of a decision: one execution does its work, however often its launch took effect.

A worker that cannot read who holds the claim must not work: an unreadable claim is a failure, never a free one.
"""

from __future__ import annotations

import json

from batch.model.errors import DependencyError, ObjectMissing, PreconditionFailed
from batch.model.names import claim_object
from batch.services.ports import ObjectStore


def claim(store: ObjectStore, decision_id: str, execution: str) -> str:
    """Claim a decision for `execution`; returns the execution that holds it, ours or another. Raises DependencyError."""
    name = claim_object(decision_id)
    body = json.dumps({"execution": execution}).encode()
    try:
        store.write(name, body, content_type="application/json", if_generation=0)
        return execution
    except PreconditionFailed:
        return _holder(store, name)


def _holder(store: ObjectStore, name: str) -> str:
    try:
        holder = json.loads(store.read(name))["execution"]
        if isinstance(holder, str) and holder:
            return holder
        raise ValueError(f"the execution is {holder!r:.200}")
    except ObjectMissing as error:
        raise DependencyError(f"claim {name} vanished while it was read: try again, and find who deletes claims") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"claim {name} is unreadable ({error!r:.200}): delete it once no execution of that decision runs"
        raise DependencyError(why) from error
