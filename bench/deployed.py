"""Lanes of a benchmark on the local cloud: their jobs, and messages whose handler sleeps."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import yaml

from batch.model.clock import iso
from batch.model.delivery import Outgoing
from batch.model.message import Task, encode, new_task_id
from controller.config import controller_settings
from controller.lanes.manifests import read_manifests
from controller.lanes.resources import Creator, needed
from controller.observe.deployed import DeployedJobs
from controller.tick.outside import Outside
from controller.wiring import connected


@dataclass(frozen=True, slots=True)
class Job:
    """A lane's job: `annotations` beside those that name what it drains, `env` beside what every worker needs."""

    lane: str
    annotations: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)

    def document(self, project: str, bucket: str) -> Mapping[str, object]:
        """As it stands in a file."""
        own = {"SUBSCRIPTION_NAME": self.lane, "TOPIC_NAME": self.lane, "LANE": self.lane, **self.env}
        env = {"GOOGLE_CLOUD_PROJECT": project, "BUCKET_NAME": bucket, **own}
        container = {"image": "any", "command": ["python", "-m", "batch"], "env": [{"name": name, "value": env[name]} for name in env]}
        annotations = {"fanout/subscription": self.lane, "fanout/topic": self.lane, **self.annotations}
        return {
            "apiVersion": "run.googleapis.com/v1",
            "kind": "Job",
            "metadata": {"name": self.lane, "labels": {"fanout-lane": self.lane}, "annotations": annotations},
            "spec": {"template": {"spec": {"template": {"spec": {"maxRetries": 1, "timeoutSeconds": 600, "containers": [container]}}}}},
        }


def deployed(stack: ExitStack, jobs: Sequence[Job], bucket: str) -> Outside:
    """What ticks of these lanes touch, in the local cloud that the environment names."""
    settings = controller_settings(os.environ)
    manifests = read_manifests(yaml.safe_dump_all([one.document(settings.project, bucket) for one in jobs]))
    creator = stack.enter_context(closing(Creator(settings.project, settings.region)))
    there = stack.enter_context(closing(DeployedJobs(settings.project, settings.region, emulator_url=settings.run_emulator)))
    for manifest in manifests:
        list(creator.create_missing(needed(manifest)))
        there.apply(manifest.name, manifest.document, exists=False)
    return stack.enter_context(connected(settings))


def sleeping(rng: random.Random, lane: str, sleep_s: float) -> Outgoing:
    """A message whose handler sleeps so long."""
    task_id = new_task_id(rng, lane)
    fields = {"filename": f"{task_id}.txt", "processing_time": sleep_s}
    return Outgoing(*encode(Task(task_id, "file_processing", iso(time.time()), fields, lane=lane, shard=f"rolling-{lane}")))
