"""Who may do what: the caller's own permissions, and those of Pub/Sub's service agent, without which nothing is dead-lettered. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fanout.doctor.finding import Finding, Verdict, fine
from fanout.doctor.place import Place

_AGENT = re.compile(r"serviceAccount:service-\d+@gcp-sa-pubsub\.iam\.gserviceaccount\.com")


@dataclass(frozen=True, slots=True)
class Need:
    """`permissions` on a thing of this kind come with `role`; `why` says who needs them."""

    kind: str
    permissions: tuple[str, ...]
    role: str
    why: str


PULL = Need("subscription", ("pubsub.subscriptions.consume",), "roles/pubsub.subscriber", "workers pull from it")
PUBLISH = Need("topic", ("pubsub.topics.publish",), "roles/pubsub.publisher", "the front door and the controller publish tasks to it")
PUBLISH_DEAD = Need("topic", ("pubsub.topics.publish",), "roles/pubsub.publisher", "workers publish dead letters to it")
WRITE = Need(
    "bucket",
    tuple(f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")),
    "roles/storage.objectUser",
    "workers and the controller read and write it",
)
LAUNCH = Need("job", ("run.jobs.run", "run.jobs.runWithOverrides"), "roles/run.jobsExecutorWithOverrides", "the controller launches it")


def of_caller(need: Need, name: str, lacking: Sequence[str], place: Place) -> Finding:
    about = f"{need.kind} {name}"
    if not lacking:
        return fine(about, "permissions", f"whoever runs this has {', '.join(need.permissions)}")
    what = f"whoever runs this lacks {', '.join(sorted(lacking))}"
    why = f"{need.why}; where that is another identity, run this command as that one; MEMBER is serviceAccount:EMAIL"
    return Finding(about, "permissions", Verdict.WRONG, what, why, place.grant(need.kind, name, '"$MEMBER"', need.role))


def of_service_agent(kind: str, name: str, role: str, holders: Sequence[str], place: Place) -> Finding:
    """What is granted on the project stands in no policy of a topic or subscription, so its absence here is not proof."""
    about = f"{kind} {name}"
    if any(_AGENT.fullmatch(one) for one in holders):
        return fine(about, "service-agent", f"Pub/Sub's service agent has {role}")
    what = f"Pub/Sub's service agent is not granted {role} on it (a grant on the project would not show here)"
    why = "without it Pub/Sub dead-letters nothing from the lane: a message that kills every worker comes back for ever"
    return Finding(about, "service-agent", Verdict.WRONG, what, why, place.grant(kind, name, place.service_agent, role))
