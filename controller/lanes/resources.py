"""What a lane needs beside its job: topic, subscription, dead-letter topic and bucket.

What is missing is created; what exists is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from batch.model.delivery import ORDERED
from batch.model.errors import DependencyForbidden, DependencyUnavailable, SettingsError
from batch.services.calls import client_info, http_client_info
from controller.lanes.manifests import Manifest

ACK_DEADLINE_S = 60
"""Short: workers extend leases, and a long deadline only delays what was outstanding at a killed worker."""
RETENTION_S = 7 * 24 * 3600
MAX_DELIVERY_ATTEMPTS = 100
"""A net only: deliveries also count nacks, so workers count the attempts."""
DEAD_LETTER_TOPIC = "dead-letters"
PATIENCE_S = 20.0
"""For one call to Cloud Storage with its retries: a person waits, and the client's own two minutes would pass without a word."""


@dataclass(frozen=True, slots=True)
class Needed:
    """The resources of one lane, by their short names."""

    topic: str
    subscription: str
    dead_letter_topic: str
    bucket: str


def needed(manifest: Manifest) -> Needed:
    """From a lane's manifest. Raises SettingsError when it names no bucket."""
    bucket = manifest.env.get("BUCKET_NAME", "")
    if not bucket:
        raise SettingsError([f"job {manifest.name}: env BUCKET_NAME is not set: the bucket for inputs, outputs and outcomes"])
    return Needed(manifest.topic, manifest.subscription, manifest.env.get("DEAD_LETTER_TOPIC", DEAD_LETTER_TOPIC), bucket)


class Creator:
    """Creates resources in one project through Google's clients, which use the local cloud if the environment says so."""

    def __init__(self, project: str, region: str, **options: Any) -> None:
        """`options` go with each call of Pub/Sub."""
        from google.cloud import pubsub_v1

        self._project, self._region, self._options = project, region, options
        self._publisher = pubsub_v1.PublisherClient(client_info=client_info())
        self._subscriber = pubsub_v1.SubscriberClient(client_info=client_info())

    def create_missing(self, wanted: Needed) -> Iterator[str]:
        """Create what does not exist; yields a line for each thing created. Raises DependencyError, and SettingsError for a subscription
        that is there and can be no lane's."""
        with _translated(f"create what the lane with subscription {wanted.subscription} needs"):
            yield from self._bucket(wanted.bucket)
            yield from self._topic(wanted.dead_letter_topic)
            yield from self._subscription(wanted.dead_letter_topic, wanted.dead_letter_topic, "")
            yield from self._topic(wanted.topic)
            yield from self._subscription(wanted.subscription, wanted.topic, wanted.dead_letter_topic)

    def close(self) -> None:
        self._publisher.transport.close()
        self._subscriber.close()

    def _path(self, kind: str, name: str) -> str:
        return f"projects/{self._project}/{kind}/{name}"

    def _topic(self, name: str) -> Iterator[str]:
        if _made(lambda: self._publisher.create_topic(request={"name": self._path("topics", name)}, **self._options)):
            yield f"created topic {name}"

    def _subscription(self, name: str, topic: str, dead_letter_topic: str) -> Iterator[str]:
        """An expiration policy without a time to live means never; without a retry policy each nack sets its own delay."""
        request: dict[str, Any] = {
            "name": self._path("subscriptions", name),
            "topic": self._path("topics", topic),
            "ack_deadline_seconds": ACK_DEADLINE_S,
            "message_retention_duration": {"seconds": RETENTION_S},
            "expiration_policy": {},
        }
        if dead_letter_topic:
            path = self._path("topics", dead_letter_topic)
            request["dead_letter_policy"] = {"dead_letter_topic": path, "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS}
        if _made(lambda: self._subscriber.create_subscription(request=request, **self._options)):
            yield f"created subscription {name} of topic {topic}"
        elif self._subscriber.get_subscription(subscription=request["name"], **self._options).enable_message_ordering:
            raise SettingsError([ORDERED.format(name)])

    def _bucket(self, name: str) -> Iterator[str]:
        from google.cloud import storage
        from google.cloud.storage.retry import DEFAULT_RETRY

        client = storage.Client(project=self._project, client_info=http_client_info())
        options: dict[str, Any] = {"timeout": PATIENCE_S, "retry": DEFAULT_RETRY.with_timeout(PATIENCE_S)}
        try:
            if client.lookup_bucket(name, **options) is None and _made(
                lambda: client.create_bucket(name, location=self._region, **options)
            ):
                yield f"created bucket {name} in {self._region}"
        finally:
            client.close()


def _made(create: Callable[[], object]) -> bool:
    """False if it exists: another caller may have been quicker."""
    from google.api_core.exceptions import AlreadyExists, Conflict

    try:
        create()
    except (AlreadyExists, Conflict):
        return False
    return True


@contextmanager
def _translated(what: str) -> Iterator[None]:
    from google.api_core.exceptions import Forbidden, GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except (Forbidden, GoogleAuthError) as error:
        raise DependencyForbidden(f"cannot {what}: {error}; roles/pubsub.editor and roles/storage.admin are needed") from error
    except (GoogleAPIError, RequestException) as error:
        raise DependencyUnavailable(f"cannot {what}: {type(error).__name__}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DependencyUnavailable(f"cannot {what}: the answer is not the service's; what stands between? {error!r:.300}") from error


def permission_hint(project: str, subscriptions: list[str], dead_letter_topic: str) -> list[str]:
    """Commands for what dead-lettering needs and no API call here may grant: rights of Pub/Sub's own service account."""
    number = f"$(gcloud projects describe {project} --format='value(projectNumber)')"
    bind, member = f"add-iam-policy-binding %s --project={project}", '--member="$AGENT" --role=roles/pubsub'
    each = f"gcloud pubsub subscriptions {bind % '$NAME'} {member}.subscriber"
    return [
        f'AGENT="serviceAccount:service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com"',
        f"gcloud pubsub topics {bind % dead_letter_topic} {member}.publisher",
        f"for NAME in {' '.join(subscriptions)}; do {each}; done",
    ]
