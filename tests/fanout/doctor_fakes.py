"""Facts and fixer of doctor in memory: services on which everything is right, until a test says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from batch.model.errors import DependencyMissing
from controller.observe.containers import Container
from controller.observe.jobs import JobInfo
from controller.observe.sources import SubscriptionFacts
from fanout.doctor.services import BucketFacts, ScheduledCall

T = TypeVar("T")

AGENT = "serviceAccount:service-123456789@gcp-sa-pubsub.iam.gserviceaccount.com"
TICK = ScheduledCall("fanout-tick", "* * * * *", "https://c.run.app/tick", True, "POST", "s@p.iam.gserviceaccount.com", "https://c.run.app")
GOOD = SubscriptionFacts("tasks", 60, 7 * 86400.0, None, False, "dead-letters", 100)

DEAD_LETTERS_JOB = JobInfo(
    "projects/p/locations/us-central1/jobs/dead-letters",
    containers=(Container("worker", "image", ("python", "-m", "batch", "dead-letters"), {"BUCKET_NAME": "bucket"}),),
)


@dataclass
class FakeFacts:
    """`errors` by name of the call are raised; `lacked` and `granted` are by (kind, name)."""

    subscriptions: dict[str, SubscriptionFacts] = field(default_factory=lambda: {"tasks-sub": GOOD, "bulk-sub": GOOD})
    topics: dict[str, list[str]] = field(
        default_factory=lambda: {"tasks": ["tasks-sub"], "dead-letters": ["projects/p/subscriptions/dead-letters"]}
    )
    buckets: dict[str, BucketFacts] = field(default_factory=lambda: {"b": BucketFacts(0.0)})
    jobs: dict[str, JobInfo] = field(default_factory=lambda: {"dead-letters": DEAD_LETTERS_JOB})
    calls: list[ScheduledCall] = field(default_factory=lambda: [TICK])
    lacked: dict[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    ungranted: set[tuple[str, str]] = field(default_factory=set)
    errors: dict[str, Exception] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)
    key_problems: dict[str, str] = field(default_factory=dict)
    subnets: dict[str, int] = field(default_factory=dict)
    notifications: list[tuple[str, str]] = field(default_factory=list)

    def subscription(self, name: str) -> SubscriptionFacts:
        self._maybe("subscription")
        return self._found(self.subscriptions, name)

    def subscriptions_of(self, topic: str) -> Sequence[str]:
        self._maybe("subscriptions_of")
        return self._found(self.topics, topic)

    def job(self, name: str) -> JobInfo:
        self._maybe("job")
        return self._found(self.jobs, name)

    def bucket(self, name: str) -> BucketFacts:
        self._maybe("bucket")
        return self._found(self.buckets, name)

    def notified(self, bucket: str) -> Sequence[tuple[str, str]]:
        self._maybe("notified")
        return self.notifications

    def soft_deleted(self, bucket: str) -> str:
        self._maybe("soft_deleted")
        return self.deleted.get(bucket, "")

    def key_problem(self, key: str) -> str:
        self._maybe("key_problem")
        return self.key_problems.get(key, "")

    def lacking(self, kind: str, name: str, permissions: Sequence[str]) -> Sequence[str]:
        self._maybe("lacking")
        return [one for one in permissions if one in self.lacked.get((kind, name), ())]

    def holders(self, kind: str, name: str, role: str) -> Sequence[str]:
        self._maybe("holders")
        return [] if (kind, name) in self.ungranted else ["user:a@example.com", AGENT]

    def addresses(self, subnet: str) -> int:
        self._maybe("addresses")
        return self._found(self.subnets, subnet)

    def scheduled_calls(self) -> Sequence[ScheduledCall]:
        self._maybe("scheduled_calls")
        return self.calls

    def _maybe(self, call: str) -> None:
        if call in self.errors:
            raise self.errors[call]

    def _found(self, things: Mapping[str, T], name: str) -> T:
        if name not in things:
            raise DependencyMissing(f"there is no {name}")
        return things[name]


@dataclass
class FakeFixer:
    """Remembers what was done; the first of `errors` is raised by the next call."""

    done: list[tuple[Any, ...]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def create_topic(self, name: str) -> None:
        self._do("create_topic", name)

    def create_subscription(self, name: str, topic: str, dead_letter_topic: str) -> None:
        self._do("create_subscription", name, topic, dead_letter_topic)

    def set_subscription(self, name: str, settings: Mapping[str, Any]) -> None:
        self._do("set_subscription", name, dict(settings))

    def set_job(
        self, name: str, *, parallelism: int | None = None, max_retries: int | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._do("set_job", name, parallelism, max_retries, env)

    def _do(self, *what: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.done.append(what)
