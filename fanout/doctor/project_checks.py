"""What lanes share: the bucket, the permissions, and whether anything ticks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from batch.model.names import DELAYED, HISTORY, OWN_FOLDERS, claim_object
from fanout.doctor.finding import Finding, Verdict, fine, judged
from fanout.doctor.place import Place
from fanout.doctor.services import BucketFacts

KEPT = ("controller/", DELAYED, "submissions/", "open/", "outcomes/")
"""What must stay until Fanout, or a person, takes it away."""


def of_bucket(facts: BucketFacts, place: Place, unbilled: Sequence[str] = ()) -> Iterator[Finding]:
    """`unbilled` are the jobs of lanes that name no BILLING_PROJECT."""
    about, update = f"bucket {place.bucket}", f"gcloud storage buckets update gs://{place.bucket}"
    advice = partial(judged, verdict=Verdict.ADVICE)
    if facts.soft_delete_s is None:
        yield Finding(about, "soft-delete", Verdict.NOT_CHECKED, "the answer does not say whether it keeps deleted objects")
    else:
        good = "it does not keep what was deleted or replaced"
        what = f"it keeps deleted and replaced objects for {facts.soft_delete_s / 86400:g} days (soft delete)"
        why = "states, outcomes and outputs that are replaced or deleted are billed for that long; keep it where inputs and outputs need it"
        yield advice(not facts.soft_delete_s, about, "soft-delete", good, what, why, f"{update} --clear-soft-delete")
    good, what = "it keeps no old versions", "it keeps old versions of every object"
    why = "the lanes' states are replaced at every change: each version is billed until deleted"
    yield advice(not facts.versioned, about, "versioning", good, what, why, f"{update} --no-versioning")
    yield from _kept(facts, about, update, place)
    yield _paid(facts, about, update, place, unbilled)
    good, what = "it has uniform bucket-level access", "access lists (ACLs) of its objects count beside its roles"
    why = "an object may be readable to others than the roles of the bucket say, and to fewer"
    yield advice(facts.uniform_access, about, "uniform-access", good, what, why, f"{update} --uniform-bucket-level-access")
    hit = sorted(
        {kept for prefixes in facts.deleting_prefixes for kept in KEPT if not prefixes or any(_overlap(one, kept) for one in prefixes)}
    )
    good, what = "no lifecycle rule deletes what Fanout needs", f"a lifecycle rule deletes objects under {', '.join(hit)}"
    why = "tasks that wait there are lost, and submissions can no longer be proven, once the rule applies: give it a matchesPrefix"
    command = f"gcloud storage buckets describe gs://{place.bucket} --format='json(lifecycle_config)'"
    yield advice(not hit, about, "lifecycle", good, what, why, command)


def _kept(facts: BucketFacts, about: str, update: str, place: Place) -> Iterator[Finding]:
    """What forbids to replace and to delete objects."""
    locked = ", and it is locked: nobody can take it away, so another bucket is needed" if facts.retention_locked else ""
    days = f"{facts.retention_s / 86400:g} days"
    yield judged(
        not facts.retention_s,
        about,
        "retention",
        "it has no retention policy",
        f"a retention policy keeps every object for {days}{locked}",
        "records of attempts, lanes' states and delayed tasks are replaced and deleted all the time: a second attempt cannot be recorded, "
        "nothing is launched, and delayed tasks are published again and again",
        f"{update} --clear-retention-period",
    )
    good, what = "new objects have no hold", "new objects get an event-based hold"
    why = "what has a hold can be neither replaced nor deleted: records of attempts, lanes' states and delayed tasks must be"
    yield judged(not facts.default_hold, about, "holds", good, what, why, f"{update} --no-default-event-based-hold")
    good, what = "its objects can have no retention of their own", "its objects can have a retention of their own (object retention)"
    why = "an output or a record that has one is kept until its time, and the task that replaces it fails; nothing does that by itself"
    command = f"gcloud storage buckets describe gs://{place.bucket} --format='value(per_object_retention)'"
    yield judged(not facts.object_retention, about, "object-retention", good, what, why, command, verdict=Verdict.ADVICE)


def _paid(facts: BucketFacts, about: str, update: str, place: Place, unbilled: Sequence[str]) -> Finding:
    check, payer = "requester-pays", place.billing_project
    if not facts.requester_pays:
        return fine(about, check, "its own project pays for requests")
    why = "a request that names no project that pays is refused, unless its identity may bill the bucket's own: workers end broken"
    if not payer:
        what = "it has Requester Pays, and BILLING_PROJECT is not set here: set it in every job and service, or turn Requester Pays off"
        return Finding(about, check, Verdict.WRONG, what, why, f"{update} --no-requester-pays")
    what = f"it has Requester Pays, and BILLING_PROJECT is not set in {', '.join(unbilled)}"
    command = " && ".join(place.update_job(job, f"--update-env-vars=BILLING_PROJECT={payer}") for job in unbilled)
    return judged(not unbilled, about, check, f"it has Requester Pays, and {payer} pays", what, why, command)


def of_notifications(lane: str, topic: str, notified: Sequence[tuple[str, str]], place: Place) -> Finding:
    """`notified` are prefix and topic of each notification of the bucket that Fanout works in."""
    about = f"bucket {place.bucket}"
    own = sorted({prefix for prefix, to in notified if to == topic and any(_overlap(prefix, f"{folder}/") for folder in OWN_FOLDERS)})
    good = f"it does not tell lane {lane} of what Fanout itself writes"
    named = " and ".join(f"objects under {prefix!r}" if prefix else "every object" for prefix in own)
    what = f"it tells topic {topic} of lane {lane} of {named}, and Fanout writes its own there"
    why = "each run writes outcomes, whose notifications launch the next run: the lane is never drained, and is paid for every minute"
    create = f"gcloud storage buckets notifications create gs://{place.bucket} --topic={topic} --object-prefix=input/"
    notifications = "gcloud storage buckets notifications"
    command = f"{notifications} list gs://{place.bucket}; {notifications} delete NOTIFICATION; {create}"
    return judged(not own, about, f"notifications-{lane}", good, what, why, command)


def of_key(key: str, problem: str, place: Place) -> Finding:
    good, what = f"Cloud Storage may use its key {key}", f"it encrypts with {key}, and {problem}"
    why = "without its key no object can be written or read: every worker ends broken, and the controller can save no state"
    command = f"gcloud storage service-agent --project={place.project} --authorize-cmek={key}"
    return judged(not problem, f"bucket {place.bucket}", "key", good, what, why, command)


def deleted_bucket(generation: str, place: Place) -> Finding:
    """One that can be restored as long as no other has its name."""
    what = f"bucket {place.bucket} was deleted, and can be restored for a while"
    why = "as long as another bucket has its name it cannot be restored, and then it is gone: with it outcomes, outputs and delayed tasks"
    command = f"gcloud storage restore gs://{place.bucket}#{generation}"
    return Finding(f"bucket {place.bucket}", "exists", Verdict.WRONG, what, why, command)


def missing_bucket(place: Place) -> Finding:
    command = (
        f"gcloud storage buckets create gs://{place.bucket} --project={place.project} --location={place.region} --soft-delete-duration=0"
    )
    why = "workers write outcomes and outputs to it, the controller its state: without it nothing is launched"
    return Finding(f"bucket {place.bucket}", "exists", Verdict.WRONG, f"bucket {place.bucket} does not exist", why, command)


def _overlap(one: str, other: str) -> bool:
    """Decisions in a lane's history are for people, and claims for executions that run: a rule may delete the old ones."""
    return not one.startswith((HISTORY, claim_object(""))) and (one.startswith(other) or other.startswith(one))


_AGENT = re.compile(r"serviceAccount:service-\d+@gcp-sa-pubsub\.iam\.gserviceaccount\.com")


@dataclass(frozen=True, slots=True)
class Need:
    """`permissions` on a thing of this kind come with `role`; `why` says who needs them."""

    kind: str
    permissions: tuple[str, ...]
    role: str
    why: str


PULL = Need("subscription", ("pubsub.subscriptions.consume",), "roles/pubsub.subscriber", "workers pull from it")
PUBLISH = Need(
    "topic", ("pubsub.topics.publish",), "roles/pubsub.publisher", "the front door, the controller and workers publish tasks to it"
)
READ = Need("subscription", ("pubsub.subscriptions.get",), "roles/pubsub.viewer", "workers read its dead-letter policy and its topic")
PUBLISH_DEAD = Need("topic", ("pubsub.topics.publish",), "roles/pubsub.publisher", "workers publish dead letters to it")
WRITE = Need(
    "bucket",
    tuple(f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")),
    "roles/storage.objectUser",
    "workers and the controller read and write it",
)
VIEWER = "roles/pubsub.viewer"
LAUNCH = Need("job", ("run.jobs.run", "run.jobs.runWithOverrides"), "roles/run.jobsExecutorWithOverrides", "the controller launches it")


def unlisted_subscriptions(problem: str, place: Place) -> Finding:
    """Ticks and `fanout lanes` look at what lanes drain by one listing."""
    why = "a tick does not see a subscription that was deleted, or that pushes elsewhere, and launches workers for it"
    grant = f'gcloud projects add-iam-policy-binding {place.project} --member="$MEMBER" --role={VIEWER}' if VIEWER in problem else ""
    return Finding("subscriptions", "listed", Verdict.UNREADABLE, problem, why, grant)


def of_caller(need: Need, name: str, lacking: Sequence[str], place: Place) -> Finding:
    good, what = f"the caller has {', '.join(need.permissions)}", f"the caller lacks {', '.join(sorted(lacking))}"
    why = f"{need.why}; where that is another identity, run this command as that one; MEMBER is serviceAccount:EMAIL"
    grant = place.grant(need.kind, name, '"$MEMBER"', need.role)
    return judged(not lacking, f"{need.kind} {name}", "permissions", good, what, why, grant)


def of_service_agent(kind: str, name: str, role: str, holders: Sequence[str], place: Place) -> Finding:
    """What is granted on the project stands in no policy of a topic or subscription, so its absence here is not proof."""
    granted = any(_AGENT.fullmatch(one) for one in holders)
    good = f"Pub/Sub's service agent has {role}"
    what = f"Pub/Sub's service agent is not granted {role} on it (a grant on the project would not show here)"
    why = "without it Pub/Sub dead-letters nothing from the lane: a message that kills every worker comes back for ever"
    return judged(granted, f"{kind} {name}", "service-agent", good, what, why, place.grant(kind, name, place.service_agent, role))
