"""What doctor asks of the services, and what `--fix` may change in them: the seam between checks and clients.

No fix deletes anything, and none touches messages or objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from batch.model.errors import DependencyError
from controller.observe.jobs import JobInfo
from controller.observe.sources import SubscriptionFacts


class NotServed(DependencyError):
    """The service has no such call at all: the local cloud knows no permissions. Nothing can be said, and nothing is wrong."""


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """`soft_delete_s` is None where the answer does not say it. `deleting_prefixes` holds the prefixes of each lifecycle rule that deletes;
    no prefix means every object. `retention_s` is 0 without a retention policy, which `retention_locked` says nobody can take away;
    `kms_key` is empty where Google's own keys encrypt."""

    soft_delete_s: float | None
    versioned: bool = False
    deleting_prefixes: tuple[tuple[str, ...], ...] = ()
    requester_pays: bool = False
    retention_s: float = 0.0
    retention_locked: bool = False
    object_retention: bool = False
    default_hold: bool = False
    uniform_access: bool = True
    kms_key: str = ""


@dataclass(frozen=True, slots=True)
class ScheduledCall:
    """One job of Cloud Scheduler that calls a URL. `account` and `audience` are those of the token that it sends, empty where it sends
    none; without an audience of its own a token is for the URL."""

    name: str
    schedule: str
    url: str
    enabled: bool
    method: str = "POST"
    account: str = ""
    audience: str = ""


class Facts(Protocol):
    """Names are short ones. All raise DependencyError: DependencyMissing for what does not exist, NotServed."""

    def subscription(self, name: str) -> SubscriptionFacts: ...

    def subscriptions_of(self, topic: str) -> Sequence[str]:
        """Full names."""

    def job(self, name: str) -> JobInfo: ...

    def bucket(self, name: str) -> BucketFacts: ...

    def notified(self, bucket: str) -> Sequence[tuple[str, str]]:
        """The bucket's notifications: the prefix of the objects that each tells of, empty for all, and its topic."""

    def soft_deleted(self, bucket: str) -> str:
        """The generation of a deleted bucket of this name that can be restored; empty when there is none."""

    def key_problem(self, key: str) -> str:
        """Why Cloud Storage itself could not encrypt and decrypt with a key of Cloud KMS (its full name); empty when it can."""

    def lacking(self, kind: str, name: str, permissions: Sequence[str]) -> Sequence[str]:
        """Which of them the caller does not have. `kind` is `subscription`, `topic`, `bucket` or `job`."""

    def holders(self, kind: str, name: str, role: str) -> Sequence[str]:
        """Members of this role in the policy of a `topic` or `subscription`; what a project's policy grants is not among them."""

    def addresses(self, subnet: str) -> int:
        """How many the primary range of `projects/P/regions/R/subnetworks/S` has, used ones and reserved ones among them."""

    def scheduled_calls(self) -> Sequence[ScheduledCall]:
        """Of the region."""


class Fixer(Protocol):
    """Names are short ones. All raise DependencyError; doing what is done already is no error."""

    def create_topic(self, name: str) -> None: ...

    def create_subscription(self, name: str, topic: str, dead_letter_topic: str) -> None:
        """With the settings of a lane's subscription; without a dead-letter policy where `dead_letter_topic` is empty."""

    def set_subscription(self, name: str, settings: Mapping[str, Any]) -> None:
        """Fields of the API's Subscription; None clears one."""

    def set_job(
        self, name: str, *, parallelism: int | None = None, max_retries: int | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Only what is given; the rest of the job stays as it is."""
