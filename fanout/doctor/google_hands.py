"""Hands through Google's clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from batch.model.errors import DependencyMissing
from controller.config import ControllerSettings
from controller.lanes.deployed import DeployedJobs
from controller.lanes.manifests import Document, Manifest
from controller.lanes.resources import ACK_DEADLINE_S, MAX_DELIVERY_ATTEMPTS, RETENTION_S
from fanout.doctor.errors import translated

_ONCE: dict[str, Any] = {"timeout": 30.0, "retry": None}


class GoogleHands:
    """Implements `Hands`."""

    def __init__(self, settings: ControllerSettings) -> None:
        from google.cloud import pubsub_v1

        with translated("log in"):
            self._publisher = pubsub_v1.PublisherClient()
            self._subscriber = pubsub_v1.SubscriberClient()
        self._settings = settings

    def create_topic(self, name: str) -> None:
        with translated(f"create topic {name}"):
            _unless_there(lambda: self._publisher.create_topic(request={"name": self._path("topics", name)}, **_ONCE))

    def create_subscription(self, name: str, topic: str, dead_letter_topic: str) -> None:
        request: dict[str, Any] = {
            "name": self._path("subscriptions", name),
            "topic": self._path("topics", topic),
            "ack_deadline_seconds": ACK_DEADLINE_S,
            "message_retention_duration": {"seconds": RETENTION_S},
            "expiration_policy": {},
        }
        if dead_letter_topic:
            topic_path = self._path("topics", dead_letter_topic)
            request["dead_letter_policy"] = {"dead_letter_topic": topic_path, "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS}
        with translated(f"create subscription {name}"):
            _unless_there(lambda: self._subscriber.create_subscription(request=request, **_ONCE))

    def set_subscription(self, name: str, settings: Mapping[str, Any]) -> None:
        changed = {"name": self._path("subscriptions", name)} | {field: value for field, value in settings.items() if value is not None}
        with translated(f"change subscription {name}"):
            self._subscriber.update_subscription(request={"subscription": changed, "update_mask": {"paths": list(settings)}}, **_ONCE)

    def set_job(
        self, name: str, *, parallelism: int | None = None, max_retries: int | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """By reading and replacing the manifest; its resource version keeps what somebody else changes in between."""
        with translated("log in"):
            client = DeployedJobs(self._settings.project, self._settings.region, emulator_url=self._settings.run_emulator)
        with closing(client) as deployed:
            document = deployed.read(name)
            if document is None:
                raise DependencyMissing(f"cannot change job {name}: it does not exist any more")
            change_job(document, parallelism, max_retries, env or {})
            deployed.apply(Manifest(name, document), exists=True)

    def close(self) -> None:
        self._publisher.transport.close()
        self._subscriber.close()

    def _path(self, kind: str, name: str) -> str:
        return f"projects/{self._settings.project}/{kind}/{name}"


def change_job(document: Document, parallelism: int | None, max_retries: int | None, env: Mapping[str, str]) -> None:
    """In place. A parallelism of 0 is one that is absent."""
    document.pop("status", None)
    execution = document["spec"]["template"]["spec"]
    worker = execution["template"]["spec"]
    if parallelism == 0:
        execution.pop("parallelism", None)
    elif parallelism is not None:
        execution["parallelism"] = parallelism
    if max_retries is not None:
        worker["maxRetries"] = max_retries
    for container in worker["containers"]:
        kept = [one for one in container.get("env") or [] if one["name"] not in env]
        container["env"] = kept + [{"name": name, "value": value} for name, value in env.items()]


def _unless_there(create: Callable[[], object]) -> None:
    from google.api_core.exceptions import AlreadyExists

    try:
        create()
    except AlreadyExists:
        return
