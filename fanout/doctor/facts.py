"""What doctor asks of the services, as values: the seam between checks and clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from batch.model.errors import DependencyError


class NotServed(DependencyError):
    """The service has no such call at all: the local cloud knows no permissions. Nothing can be said, and nothing is wrong."""


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """Names are short ones; empty where there is none. `expires_after_s` None: never."""

    topic: str
    ack_deadline_s: int
    retention_s: float
    expires_after_s: float | None = None
    has_retry_policy: bool = False
    dead_letter_topic: str = ""
    max_delivery_attempts: int = 0
    push_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """`soft_delete_s` None: the answer does not say. `deleting_prefixes` holds, for each lifecycle rule that deletes, its prefixes; none
    means every object."""

    soft_delete_s: float | None
    versioned: bool = False
    deleting_prefixes: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduledCall:
    """One job of Cloud Scheduler that calls a URL."""

    name: str
    schedule: str
    url: str
    enabled: bool


class Facts(Protocol):
    """Names are short ones. All raise DependencyError: DependencyMissing for what does not exist, NotServed."""

    def subscription(self, name: str) -> SubscriptionFacts: ...

    def subscriptions_of(self, topic: str) -> Sequence[str]:
        """Full names."""

    def bucket(self, name: str) -> BucketFacts: ...

    def lacking(self, kind: str, name: str, permissions: Sequence[str]) -> Sequence[str]:
        """Which of them the caller does not have. `kind` is `subscription`, `topic`, `bucket` or `job`."""

    def holders(self, kind: str, name: str, role: str) -> Sequence[str]:
        """Members of this role in the policy of a `topic` or `subscription`; what a project's policy grants is not among them."""

    def scheduled_calls(self) -> Sequence[ScheduledCall]:
        """Of the region."""
