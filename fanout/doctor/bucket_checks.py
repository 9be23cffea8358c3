"""What the bucket should be like. Pure. Nothing here is mended by itself: each setting protects somebody's data."""

from __future__ import annotations

from collections.abc import Iterator

from batch.model.names import DELAYED
from fanout.doctor.facts import BucketFacts
from fanout.doctor.finding import Finding, Verdict, fine
from fanout.doctor.place import Place

KEPT = ("controller/", DELAYED, "submissions/", "outcomes/")
"""What must stay until Fanout, or a person, takes it away."""


def of_bucket(facts: BucketFacts, place: Place) -> Iterator[Finding]:
    about = f"bucket {place.bucket}"
    yield _soft_delete(about, facts, place)
    yield _versioning(about, facts, place)
    yield _lifecycle(about, facts, place)


def missing_bucket(place: Place) -> Finding:
    command = (
        f"gcloud storage buckets create gs://{place.bucket} --project={place.project} --location={place.region} --soft-delete-duration=0"
    )
    why = "workers write outcomes and outputs to it, the controller its state: without it nothing is launched"
    return Finding(f"bucket {place.bucket}", "exists", Verdict.WRONG, f"bucket {place.bucket} does not exist", why, command)


def _soft_delete(about: str, facts: BucketFacts, place: Place) -> Finding:
    if facts.soft_delete_s is None:
        return Finding(about, "soft-delete", Verdict.NOT_CHECKED, "the answer does not say whether it keeps deleted objects")
    if not facts.soft_delete_s:
        return fine(about, "soft-delete", "it does not keep what was deleted or replaced")
    what = f"it keeps deleted and replaced objects for {facts.soft_delete_s / 86400:g} days (soft delete)"
    why = "states, outcomes and outputs that are replaced or deleted are billed for that long; keep it where inputs and outputs need it"
    return Finding(
        about, "soft-delete", Verdict.ADVICE, what, why, f"gcloud storage buckets update gs://{place.bucket} --clear-soft-delete"
    )


def _versioning(about: str, facts: BucketFacts, place: Place) -> Finding:
    if not facts.versioned:
        return fine(about, "versioning", "it keeps no old versions")
    what, why = (
        "it keeps old versions of every object",
        "the lanes' states are replaced at every change: each version is billed until deleted",
    )
    return Finding(about, "versioning", Verdict.ADVICE, what, why, f"gcloud storage buckets update gs://{place.bucket} --no-versioning")


def _lifecycle(about: str, facts: BucketFacts, place: Place) -> Finding:
    hit = sorted(
        {kept for prefixes in facts.deleting_prefixes for kept in KEPT if not prefixes or any(_overlap(one, kept) for one in prefixes)}
    )
    if not hit:
        return fine(about, "lifecycle", "no lifecycle rule deletes what Fanout needs")
    what = f"a lifecycle rule deletes objects under {', '.join(hit)}"
    why = "tasks that wait there are lost, and submissions can no longer be proven, once the rule applies: give it a matchesPrefix"
    command = f"gcloud storage buckets describe gs://{place.bucket} --format='json(lifecycle_config)'"
    return Finding(about, "lifecycle", Verdict.ADVICE, what, why, command)


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
