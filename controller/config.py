"""The settings of the controller, from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batch.settings import read, setting, text, whole

RUN_EMULATOR = "CLOUD_RUN_EMULATOR_HOST"
MONITORING_EMULATOR = "CLOUD_MONITORING_EMULATOR_HOST"


@dataclass(frozen=True)
class ControllerSettings:
    """`run_emulator` is a URL, `monitoring_emulator` is `host:port`; both are empty in production."""

    project: str = setting("GOOGLE_CLOUD_PROJECT", text, "the project of jobs, subscriptions and bucket")
    bucket_name: str = setting("BUCKET_NAME", text, "the bucket that workers write their progress to")
    region: str = setting("REGION", text, "the region of the jobs", default="us-central1")
    port: int = setting("PORT", whole(0, 65535), "the port to serve on; 0 takes a free one", default=8080)
    run_emulator: str = setting(RUN_EMULATOR, text, "the local cloud's Cloud Run", default="")
    monitoring_emulator: str = setting(MONITORING_EMULATOR, text, "the local cloud's Cloud Monitoring", default="")

    @property
    def where(self) -> str:
        return f"project {self.project}, region {self.region}"


def controller_settings(environment: Mapping[str, str]) -> ControllerSettings:
    """Raises SettingsError with every problem."""
    return read(ControllerSettings, environment)
