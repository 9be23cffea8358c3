"""What the settings of a bucket forbid: replacing and deleting what a retention policy or a hold keeps, and requests that nobody pays for.

The texts are those that people have reported of the real service.
"""

from __future__ import annotations

from datetime import UTC, datetime

from local_cloud.storage.model.errors import ObjectUnderActiveHold, RetentionPolicyNotMet, UserProjectMissing
from local_cloud.storage.model.records import Bucket, StoredObject


def check_kept(bucket: Bucket, live: StoredObject, now_s: float) -> None:
    """Whether this object may be replaced or deleted. Raises ObjectUnderActiveHold, RetentionPolicyNotMet."""
    what = f"Object '{live.bucket}/{live.name}' is"
    for field, kind in (("eventBasedHold", "Event-Based"), ("temporaryHold", "Temporary")):
        if live.fields.get(field):
            raise ObjectUnderActiveHold(
                f"{what} under active {kind} hold and cannot be deleted, overwritten or archived until hold is removed."
            )
    until_s = live.created_s + _retention_s(bucket)
    if until_s > now_s:
        until = datetime.fromtimestamp(until_s, UTC).isoformat()
        raise RetentionPolicyNotMet(
            f"{what} subject to bucket's retention policy or object retention and cannot be deleted or overwritten until {until}"
        )


def check_payer(bucket: Bucket, payer: str) -> None:
    """`payer` is the project that the request names, if any. Raises UserProjectMissing."""
    billing = bucket.fields.get("billing")
    if isinstance(billing, dict) and billing.get("requesterPays") is True and not payer:
        raise UserProjectMissing("Bucket is requester pays bucket but no user project provided.")


def _retention_s(bucket: Bucket) -> float:
    policy = bucket.fields.get("retentionPolicy")
    try:
        return float(policy["retentionPeriod"]) if isinstance(policy, dict) else 0.0
    except (KeyError, TypeError, ValueError):
        return 0.0
