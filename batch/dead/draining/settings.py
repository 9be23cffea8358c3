"""The settings of the dead-letters job."""

from __future__ import annotations

from dataclasses import dataclass

from batch.settings import BILLING_HELP, BUCKET_NAME, BY_METADATA, PUBSUB_NAME, log_level_setting, seconds, setting, text, whole


@dataclass(frozen=True)
class DeadLetterSettings:
    """What one worker of the job needs to know."""

    project: str = setting("GOOGLE_CLOUD_PROJECT", text, "the project that holds subscription, topics and bucket" + BY_METADATA)
    bucket_name: str = setting("BUCKET_NAME", BUCKET_NAME, "the bucket for the log of dead letters")
    subscription_name: str = setting(
        "DEAD_LETTER_SUBSCRIPTION", PUBSUB_NAME, "the subscription of the dead-letter topic", default="dead-letters"
    )
    billing_project: str = setting("BILLING_PROJECT", text, BILLING_HELP, default="")
    task_timeout_s: float = setting(
        "TASK_TIMEOUT_S", seconds(10), "the manifest's task timeout, which Cloud Run does not tell", default=600.0
    )
    drain_after_s: float = setting("DRAIN_AFTER_S", seconds(0), "how long the subscription must have been empty to be drained", default=5.0)
    log_level: str = log_level_setting()
    job: str = setting("CLOUD_RUN_JOB", text, "set by Cloud Run", default="local")
    execution: str = setting("CLOUD_RUN_EXECUTION", text, "set by Cloud Run", default="local")
    index: int = setting("CLOUD_RUN_TASK_INDEX", whole(0), "set by Cloud Run; the first worker also applies the retry rules", default=0)
    retry: int = setting("CLOUD_RUN_TASK_ATTEMPT", whole(0), "set by Cloud Run; 0 is the first try", default=0)
