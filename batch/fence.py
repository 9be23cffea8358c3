"""The fence: one execution does the work of a decision, however often its launch took effect."""

from __future__ import annotations

import json

from batch.errors import PreconditionFailed
from batch.names import claim_object
from batch.objects import ObjectStore


def claim(store: ObjectStore, decision_id: str, execution: str) -> str:
    """Claim a decision for `execution`; returns the execution that holds it, ours or another. Raises DependencyError."""
    name = claim_object(decision_id)
    body = json.dumps({"execution": execution}).encode()
    try:
        store.write(name, body, content_type="application/json", if_generation=0)
        return execution
    except PreconditionFailed:
        return str(json.loads(store.read(name))["execution"])
