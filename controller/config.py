"""The settings of the controller, from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batch.model.errors import SettingsError
from batch.prices import LIST_PERCENT
from batch.serving.oidc import Rules, audience_setting, certs_url_setting, emails, issuer_problem, issuer_setting
from batch.settings import BILLING_HELP, BY_METADATA, log_level_setting, read, seconds, setting, telemetry_setting, text, whole
from controller.decide.budget import Quotas
from controller.lanes.annotations import positive
from controller.observe.backlog import LONGEST_WINDOW_S, WINDOW_S

RUN_EMULATOR = "CLOUD_RUN_EMULATOR_HOST"
MONITORING_EMULATOR = "CLOUD_MONITORING_EMULATOR_HOST"


def window(value: str) -> float:
    """Seconds that a sample may be old. Raises ValueError with the rule."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 120 <= number <= LONGEST_WINDOW_S:
        raise ValueError(f"a number of seconds from 120 to {LONGEST_WINDOW_S:.0f}")
    return number


def percent(value: str) -> float:
    """Above 0, at most 100. Raises ValueError with the rule."""
    number = positive(value)
    if number > 100:
        raise ValueError("a number above 0, at most 100")
    return number


@dataclass(frozen=True)
class ControllerSettings:
    """`run_emulator` is a URL, `monitoring_emulator` is `host:port`; both are empty in production."""

    project: str = setting("GOOGLE_CLOUD_PROJECT", text, "the project of jobs, subscriptions and bucket" + BY_METADATA)
    bucket_name: str = setting("BUCKET_NAME", text, "the bucket that workers write their progress to")
    billing_project: str = setting("BILLING_PROJECT", text, BILLING_HELP, default="")
    region: str = setting("REGION", text, "the region of the jobs", default="us-central1")
    port: int = setting("PORT", whole(0, 65535), "the port to serve on; 0 takes a free one", default=8080)
    run_emulator: str = setting(RUN_EMULATOR, text, "the local cloud's Cloud Run", default="")
    monitoring_emulator: str = setting(MONITORING_EMULATOR, text, "the local cloud's Cloud Monitoring", default="")
    worker_budget: int | None = setting("WORKER_BUDGET", whole(1), "workers alive at a time, over all lanes; empty: no bound", default=None)
    cpu_quota_vcpu: float | None = setting("CPU_QUOTA_VCPU", positive, "vCPU of all workers alive; empty: no bound", default=None)
    reading_window_s: float = setting(
        "READING_WINDOW_S", window, "how far back a sample of the backlog may lie; an older one is unknown", default=WINDOW_S
    )
    delayed_price_percent: float = setting(
        "DELAYED_PRICE_PERCENT",
        percent,
        "what workers of delayed jobs cost, of the list price: see a bill",
        default=LIST_PERCENT,
    )
    run_calls_per_minute: int = setting("RUN_CALLS_PER_MINUTE", whole(1), "launches that Cloud Run is asked for in a minute", default=60)
    tick_every_s: float = setting("TICK_EVERY_S", seconds(1), "between ticks of Scheduler: what waits counts on it", default=60.0)
    tick_deadline_s: float = setting("TICK_DEADLINE_S", seconds(0.1), "within which a tick is answered; a longer one goes on", default=50.0)
    log_level: str = log_level_setting()
    telemetry: tuple[str, ...] = telemetry_setting()
    stop_timeout_s: float = setting("STOP_TIMEOUT_S", seconds(0), "what a running tick has left after SIGTERM", default=6.0)
    oidc_audience: str = audience_setting()
    oidc_emails: tuple[str, ...] = setting("OIDC_EMAILS", emails, "service accounts that may call everything", default=())
    poke_emails: tuple[str, ...] = setting(
        "POKE_EMAILS", emails, "service accounts that may post /pokes alone: the front door's", default=()
    )
    oidc_issuer: str = issuer_setting()
    oidc_certs_url: str = certs_url_setting()

    @property
    def quotas(self) -> Quotas:
        """What the lanes share."""
        return Quotas(self.worker_budget, self.cpu_quota_vcpu, self.run_calls_per_minute)

    @property
    def rules(self) -> Rules:
        """Whose tokens are accepted."""
        return Rules(self.oidc_audience, frozenset(self.oidc_emails), self.oidc_issuer)

    @property
    def where(self) -> str:
        """For messages."""
        return f"project {self.project}, region {self.region}"


def controller_settings(environment: Mapping[str, str]) -> ControllerSettings:
    """The settings from the environment. Raises SettingsError with every problem."""
    settings = read(ControllerSettings, environment)
    problems = []
    if settings.oidc_audience and not (settings.oidc_emails or settings.poke_emails):
        problems.append("OIDC_EMAILS is not set, but OIDC_AUDIENCE is: anybody can get a token for any audience; name who may call")
    if (settings.oidc_emails or settings.poke_emails) and not settings.oidc_audience:
        problems.append("OIDC_AUDIENCE is not set, but OIDC_EMAILS or POKE_EMAILS is: set it to the audience of the callers' tokens")
    problems += issuer_problem(settings.oidc_issuer, settings.oidc_certs_url)
    if problems:
        raise SettingsError(problems)
    return settings
