"""Making the local cloud ready for the demo: bucket, topics, subscriptions, jobs, files. Everything through the product's own code.

The jobs are those of `jobs.yaml`; what the demo changes in them is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

import yaml

from batch.model.errors import SettingsError
from batch.model.names import input_object
from batch.services.ports import ObjectStore
from controller.config import ControllerSettings
from controller.lanes.manifests import Filling, Manifest, completed, read_manifests
from controller.lanes.resources import Creator, needed
from controller.model.together import together
from controller.observe.deployed import DeployedJobs
from controller.observe.job_documents import Document
from fanout.demo.workload import CONCURRENCY, FACTS, SourceFile, Workload, facts

BUCKET = "fanout-demo"
UPLOADS = 6
PROGRESS_INTERVAL_S = 1.0
SHORT_DEADLINE_S = 10
"""Ack deadline where a worker is to be killed: its outstanding messages come back after this, not after a minute."""
WORKER_ENV = {
    "PROGRESS_INTERVAL_S": f"{PROGRESS_INTERVAL_S:g}",
    "FLUSH_INTERVAL_S": "1",
    "BILLING_FLOOR_S": "0",
    "CONCURRENCY": f"{CONCURRENCY}",
}
"""Faster than in production, so that there is something to see. Nobody bills a minute here: each worker ends with its own share."""
KILLED_FLOOR_S = 2 * SHORT_DEADLINE_S
"""Where a worker is to be killed, its retry waits so long for what was on its leases."""


def demo_manifests(text: str, loads: Sequence[Workload], project: str, *, kill_worker: bool = False) -> list[Manifest]:
    """The lanes' manifests of a `jobs.yaml` with the demo's shares and settings; with `kill_worker` a worker is to be killed. Raises
    SettingsError, also for a lane that it lacks."""
    shares = {load.lane: load.share for load in loads}
    found = [one for one in read_manifests(text) if one.lane in shares]
    lacking = sorted(set(shares) - {one.lane for one in found})
    if lacking:
        raise SettingsError([f"the demo needs a job for lane {lane}, and the file has none" for lane in lacking])
    documents = [_with_share(one.document, shares[one.lane]) for one in found]
    env = {"GOOGLE_CLOUD_PROJECT": project, "BUCKET_NAME": BUCKET, **WORKER_ENV}
    env |= {"BILLING_FLOOR_S": f"{KILLED_FLOOR_S}"} if kill_worker else {}
    read = read_manifests(yaml.safe_dump_all(documents, sort_keys=False))
    return [completed(one, Filling(env={**env, "MAX_MESSAGES": f"{one.policy.max_messages}"})) for one in read]


def _with_share(document: Document, share: int) -> Document:
    metadata = document["metadata"]
    annotations = {**(metadata.get("annotations") or {}), "fanout/max-messages": str(share), "fanout/max-wait": "0s"}
    return {**document, "metadata": {**metadata, "annotations": annotations}}


def create(manifests: Iterable[Manifest], settings: ControllerSettings, *, short_deadline: bool) -> Iterator[str]:
    """Create resources and apply the jobs, saying each thing as it is made. Raises DependencyError."""
    with closing(Creator(settings.project, settings.region)) as creator:
        for manifest in manifests:
            yield from creator.create_missing(needed(manifest))
            if short_deadline:
                _shorten(settings.project, manifest.subscription)
    with closing(DeployedJobs(settings.project, settings.region, emulator_url=settings.run_emulator)) as jobs:
        for manifest in manifests:
            jobs.apply(manifest.name, manifest.document, exists=jobs.read(manifest.name) is not None)
            yield f"applied job {manifest.name}: lane {manifest.lane}, at most {manifest.policy.max_messages} messages a worker"


def _shorten(project: str, subscription: str) -> None:
    from google.cloud import pubsub_v1

    changed = {"name": f"projects/{project}/subscriptions/{subscription}", "ack_deadline_seconds": SHORT_DEADLINE_S}
    with pubsub_v1.SubscriberClient() as client:
        client.update_subscription(request={"subscription": changed, "update_mask": {"paths": ["ack_deadline_seconds"]}})


def upload(store: ObjectStore, files: Sequence[SourceFile]) -> int:
    """All files, several at a time, and the table of facts; returns the bytes. Raises DependencyError."""

    def one(file: SourceFile) -> int:
        return store.write(input_object(file.name), file.path.read_bytes(), content_type="text/x-python").size

    return sum(together(one, files, UPLOADS, "upload")) + store.write(FACTS, facts(files), content_type="text/csv").size
