"""The seam to what lanes drain: the subscriptions of a project as they are set, and which of them a topic has.

Everything is read by one listing for all lanes. A listing may lag, so a subscription that it does not show is asked for by its name before
anybody says that it is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable
from batch.services.calls import client_info

TIMEOUT_S = 5.0
"""For one call, which is not retried: a tick goes on without its answer, and the next one asks again."""
PAGE = 1000
DELETED_TOPIC = "_deleted-topic_"


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """Names are short ones, full ones where the project is another; empty where there is none: a `topic` that was deleted, too.
    `expires_after_s` is None for a subscription that never expires; `exports_to` is a table of BigQuery or a bucket that gets its messages
    instead of who pulls."""

    topic: str
    ack_deadline_s: int
    retention_s: float
    expires_after_s: float | None = None
    has_retry_policy: bool = False
    dead_letter_topic: str = ""
    max_delivery_attempts: int = 0
    push_endpoint: str = ""
    is_ordered: bool = False
    message_filter: str = ""
    is_detached: bool = False
    exports_to: str = ""


class SourceReader(Protocol):
    """The subscriptions of one project, by short names. All methods raise DependencyError: DependencyMissing for what does not exist."""

    def subscriptions(self) -> Mapping[str, SubscriptionFacts]:
        """All of the project."""

    def subscription(self, name: str) -> SubscriptionFacts: ...

    def subscriptions_of(self, topic: str) -> Sequence[str]:
        """Full names."""


class GoogleSources:
    """Implements `SourceReader` through Google's clients, made when they are first needed. Safe from any thread."""

    def __init__(self, project: str, timeout_s: float = TIMEOUT_S) -> None:
        self._project, self._options = project, {"timeout": timeout_s, "retry": None}
        self._lock = threading.Lock()
        self._made: tuple[Any, Any] | None = None

    def subscriptions(self) -> Mapping[str, SubscriptionFacts]:
        with translated("list the subscriptions"):
            request = {"project": f"projects/{self._project}", "page_size": PAGE}
            found = list(self._clients()[0].list_subscriptions(request=request, **self._options))
            return {str(one.name).rsplit("/", 1)[-1]: subscription_facts(one) for one in found}

    def subscription(self, name: str) -> SubscriptionFacts:
        with translated(f"read subscription {name}"):
            request = {"subscription": f"projects/{self._project}/subscriptions/{name}"}
            return subscription_facts(self._clients()[0].get_subscription(request=request, **self._options))

    def subscriptions_of(self, topic: str) -> Sequence[str]:
        with translated(f"list the subscriptions of topic {topic}"):
            request = {"topic": f"projects/{self._project}/topics/{topic}"}
            return list(self._clients()[1].list_topic_subscriptions(request=request, **self._options))

    def close(self) -> None:
        if self._made is not None:
            subscriber, publisher = self._made
            subscriber.close()
            publisher.transport.close()

    def _clients(self) -> tuple[Any, Any]:
        from google.cloud import pubsub_v1

        with self._lock:
            if self._made is None:
                self._made = pubsub_v1.SubscriberClient(client_info=client_info()), pubsub_v1.PublisherClient(client_info=client_info())
            return self._made


def subscription_facts(found: Any) -> SubscriptionFacts:
    """From the API's Subscription. A policy of expiration without a time means never."""
    project = str(found.name).split("/subscriptions/", maxsplit=1)[0]
    ttl = found.expiration_policy.ttl
    policy = found.dead_letter_policy
    return SubscriptionFacts(
        topic="" if found.topic == DELETED_TOPIC else _short(str(found.topic), project),
        ack_deadline_s=int(found.ack_deadline_seconds),
        retention_s=float(found.message_retention_duration.total_seconds()),
        expires_after_s=float(ttl.total_seconds()) if ttl else None,
        has_retry_policy="retry_policy" in found,
        dead_letter_topic=_short(str(policy.dead_letter_topic), project) if policy else "",
        max_delivery_attempts=int(policy.max_delivery_attempts) if policy else 0,
        push_endpoint=str(found.push_config.push_endpoint) if found.push_config else "",
        is_ordered=bool(found.enable_message_ordering),
        message_filter=str(found.filter),
        is_detached=bool(found.detached),
        exports_to=_export(found),
    )


def _short(name: str, project: str) -> str:
    return name.removeprefix(f"{project}/topics/")


def _export(found: Any) -> str:
    if found.bigquery_config.table:
        return f"table {found.bigquery_config.table} of BigQuery"
    return f"bucket {found.cloud_storage_config.bucket}" if found.cloud_storage_config.bucket else ""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Google's errors as ours; `what` completes "cannot"."""
    from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, Unauthorized
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except NotFound as error:
        raise DependencyMissing(f"cannot {what}: {_words(error)}") from error
    except (Forbidden, Unauthorized, GoogleAuthError) as error:
        raise DependencyForbidden(
            f"cannot {what}: {_words(error)}; it needs the custom role fanoutController, or roles/pubsub.viewer"
        ) from error
    except GoogleAPIError as error:
        raise DependencyUnavailable(f"cannot {what}: {type(error).__name__}: {_words(error)}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DependencyUnavailable(f"cannot {what}: the answer is not Pub/Sub's, is a proxy in between? {error!r:.300}") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
