"""Settings: how they are read from the outside (all problems at once, each with name, value, rule and a did-you-mean), and a worker's.

A settings class is a frozen dataclass whose fields carry `setting(...)`; `read` fills it from a mapping such as the environment.
Nothing is read at import.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from typing import Any, TypeVar

from batch.formats.forms import Forms
from batch.formats.kinds import ENVELOPE, event_types, formats, untyped
from batch.logs import LEVELS
from batch.model.errors import SettingsError
from batch.model.message import BUILT_IN
from batch.model.shares import share

T = TypeVar("T")
Parse = Callable[[str], Any]


def setting(env: str, parse: Parse, help_text: str, *, default: Any = MISSING, secret: bool = False) -> Any:
    """A field read from the variable `env`. Without a default it is required. `parse` raises ValueError with the rule. The value of a
    `secret` one stands in no problem, nor where the settings are shown."""
    metadata = {"env": env, "parse": parse, "help": help_text, "secret": secret}
    return field(metadata=metadata, repr=not secret) if default is MISSING else field(default=default, metadata=metadata, repr=not secret)


def whole(minimum: int, maximum: int | None = None) -> Parse:
    """A whole number within bounds."""
    rule = f"a whole number, {minimum} or more" if maximum is None else f"a whole number from {minimum} to {maximum}"
    return _number(int, minimum, inf if maximum is None else maximum, rule)


def seconds(minimum: float) -> Parse:
    """A number of seconds."""
    return _number(float, minimum, sys.float_info.max, f"a number of seconds, {minimum:g} or more")


def _number(kind: Callable[[str], float], minimum: float, maximum: float, rule: str) -> Parse:
    def parse(text: str) -> float:
        with suppress(ValueError):
            if minimum <= (value := kind(text)) <= maximum:
                return value
        raise ValueError(rule)

    return parse


def text(value: str) -> str:
    """A text that is not blank."""
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def matching(pattern: str, rule: str) -> Parse:
    """A text that matches the whole of `pattern`."""
    compiled = re.compile(pattern)

    def parse(value: str) -> str:
        if not compiled.fullmatch(value.strip()):
            raise ValueError(rule)
        return value.strip()

    return parse


def names(value: str) -> tuple[str, ...]:
    """Names separated by commas, at least one."""
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if not parts:
        raise ValueError("one or more names, separated by commas")
    return parts


def read(kind: type[T], environment: Mapping[str, str]) -> T:
    """The settings in `environment`. Raises SettingsError with one line for each problem, in the order of the fields."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    known = {one.metadata["env"]: one for one in fields(kind)}  # type: ignore[arg-type]
    for env, one in known.items():
        given = environment.get(env)
        if given is None or (given == "" and one.default is not MISSING):
            if one.default is MISSING:
                problems.append(f"{env} is not set: {one.metadata['help']}{_near(env, environment, known)}")
            continue
        try:
            values[one.name] = one.metadata["parse"](given)
        except ValueError as error:
            problems.append(f"{env}: {error}" if one.metadata["secret"] else f"{env}={given[:200]!r}: {error}")
    if problems:
        raise SettingsError(problems)
    return kind(**values)


def default_text(default: object) -> str:
    """A field's default for a help text; empty when there is nothing to show."""
    if default is MISSING or default in (None, "", ()):
        return ""
    return ",".join(default) if isinstance(default, tuple) else f"{default}"


def _near(env: str, environment: Mapping[str, str], known: Container[str]) -> str:
    others = [name for name in environment if name not in known]
    near = difflib.get_close_matches(env, others, n=1, cutoff=0.85)
    return f" ({near[0]} is set; did you mean {env}?)" if near else ""


SIGTERM_GRACE_S = 10.0
"""Between SIGTERM and SIGKILL on Cloud Run."""

PUBSUB_NAME = matching(
    r"[A-Za-z][A-Za-z0-9._~%+-]{2,254}", "the short name of a Pub/Sub resource: a letter, then 2 to 254 of A-Z a-z 0-9 . _ ~ % + -"
)
BUCKET_NAME = matching(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "the name of a bucket: 3 to 222 of a-z 0-9 . _ -, without gs://")

BY_METADATA = "; where it is absent, the metadata server is asked"
BILLING_HELP = "the project that pays for requests to a bucket with Requester Pays; empty for other buckets"


def flag(value: str) -> bool:
    """A setting that is on or off."""
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.strip().lower() not in known:
        raise ValueError("true or false")
    return known[value.strip().lower()]


def log_level(value: str) -> str:
    """The name of a severity."""
    if (name := value.strip().upper()) in LEVELS:
        return name
    raise ValueError(f"one of {', '.join(LEVELS)}")


def log_level_setting() -> Any:
    """The field of every process that logs."""
    return setting(
        "LOG_LEVEL", log_level, "the least severity that is logged: DEBUG, INFO, NOTICE, WARNING, ERROR or CRITICAL", default="INFO"
    )


EXPORTERS = {
    "otlp": ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"),
    "google": ("opentelemetry.sdk.trace", "opentelemetry.exporter.cloud_trace", "opentelemetry.exporter.cloud_monitoring"),
}
"""Where traces and metrics can go, and the modules that this takes."""


def telemetry(value: str) -> tuple[str, ...]:
    """Names of EXPORTERS, separated by commas."""
    given = names(value.lower())
    for one in given:
        if one not in EXPORTERS:
            near = difflib.get_close_matches(one, EXPORTERS, n=1)
            raise ValueError(f"one or more of {', '.join(EXPORTERS)}" + (f"; did you mean {near[0]}?" if near else ""))
        if lacking := next((name for name in EXPORTERS[one] if not _is_installed(name)), None):
            raise ValueError(f"{one} needs {lacking}, which is not installed: install 'fanout-batch[telemetry]', or unset TELEMETRY")
    return tuple(dict.fromkeys(given))


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def telemetry_setting() -> Any:
    """The field of every process that has traces and metrics."""
    return setting(
        "TELEMETRY",
        telemetry,
        "where traces and metrics go, by OpenTelemetry: otlp (its own OTEL_* variables say where), google (Cloud Trace and Cloud "
        "Monitoring), or both; empty: nowhere. Needs the extra telemetry",
        default=(),
    )


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker needs to know. Seconds are floats; counts are whole numbers."""

    project: str = setting("GOOGLE_CLOUD_PROJECT", text, "the project that holds subscription, topic and bucket" + BY_METADATA)
    subscription_name: str = setting("SUBSCRIPTION_NAME", PUBSUB_NAME, "the subscription to drain")
    bucket_name: str = setting("BUCKET_NAME", BUCKET_NAME, "the bucket for inputs, outputs and outcomes")
    topic_name: str = setting("TOPIC_NAME", text, "the lane's topic; needed where the worker may not read its subscription", default="")
    billing_project: str = setting("BILLING_PROJECT", text, BILLING_HELP, default="")
    dead_letter_topic: str = setting("DEAD_LETTER_TOPIC", PUBSUB_NAME, "where messages that can never succeed go", default="dead-letters")
    max_messages: int = setting("MAX_MESSAGES", whole(1), "how many messages one worker may take at most", default=1000)
    backlog: int | None = setting(
        "BACKLOG", whole(0), "messages this execution was launched for, split over its workers; set by the controller", default=None
    )
    share_limit: int | None = setting(
        "SHARE_LIMIT",
        whole(1),
        "messages that a worker takes at most in a minute that is billed anyway, its share with it; set by the controller, as "
        "fanout/max-messages",
        default=None,
    )
    decision_id: str = setting("DECISION_ID", text, "the decision that launched this execution; set by the controller", default="")
    handlers: tuple[str, ...] = setting("HANDLERS", names, "modules whose handlers to load", default=("batch.handlers",))
    concurrency: int = setting("CONCURRENCY", whole(1, 1000), "tasks that one worker runs at a time", default=8)
    processes: int | None = setting(
        "PROCESSES", whole(1, 256), "child processes for isolated handlers; one for each CPU by default", default=None
    )
    child_environment: tuple[str, ...] = setting(
        "CHILD_ENVIRONMENT",
        names,
        "variables that isolated handlers get beside those which every program needs; DATABASE_URL,MY_* for example, * for all",
        default=(),
    )
    data_max_bytes: int = setting(
        "DATA_MAX_BYTES",
        whole(1024 * 1024),
        "the largest object that Fanout's own handlers take; a table's files may need 7 times as much, and on Cloud Run files are memory",
        default=52_428_800,
    )
    quarantine_timeout_s: float = setting(
        "QUARANTINE_TIMEOUT_S", seconds(1), "how long a quarantined task may run alone, if its handler has no timeout_s", default=600.0
    )
    quarantine_memory_mb: int = setting(
        "QUARANTINE_MEMORY_MB", whole(64), "memory that a quarantined task may use, if its handler has no memory_mb", default=512
    )
    slow_after_s: float = setting(
        "SLOW_AFTER_S",
        seconds(0.1),
        "how long a handler may run before a line with its stack says so; at least ten times what tasks of its type usually take",
        default=60.0,
    )
    handler_timeout_s: float | None = setting(
        "HANDLER_TIMEOUT_S", seconds(0.1), "the time limit of handlers that name no timeout_s; none by default", default=None
    )
    task_timeout_s: float = setting(
        "TASK_TIMEOUT_S", seconds(1), "the manifest's task timeout, which Cloud Run does not tell", default=600.0
    )
    lane: str = setting("LANE", text, "the lane; the job's own name by default", default="")
    progress_interval_s: float = setting("PROGRESS_INTERVAL_S", seconds(0.1), "how often progress is written", default=15.0)
    flush_interval_s: float = setting("FLUSH_INTERVAL_S", seconds(0.05), "how long an outcome may wait to be written", default=5.0)
    prefetch_s: float = setting("PREFETCH_S", seconds(0.01), "pull only what will start within this time", default=1.0)
    drain_after_s: float = setting("DRAIN_AFTER_S", seconds(0), "how long the subscription must have been empty to be drained", default=5.0)
    billing_floor_s: float = setting(
        "BILLING_FLOOR_S",
        seconds(0),
        "the least time Cloud Run bills a worker for: one that the controller launched takes more than its share while it lasts; 0: never",
        default=60.0,
    )
    accept: tuple[str, ...] = setting(
        "ACCEPT",
        formats,
        "the forms of messages that are taken, separated by commas: `envelope` (as clients of Fanout write them), `raw` (any bytes), "
        "`gcs-notification`, `cloudevents`; as the annotation fanout/accept says",
        default=(ENVELOPE,),
    )
    default_type: str = setting(
        "DEFAULT_TYPE", text, "the task type of messages that name none; as the annotation fanout/default-type says", default=""
    )
    event_types: tuple[str, ...] = setting(
        "EVENT_TYPES",
        event_types,
        "which events of a bucket's notifications are run; as the annotation fanout/event-types says",
        default=("OBJECT_FINALIZE",),
    )
    max_outstanding_bytes: int = setting(
        "MAX_OUTSTANDING_BYTES", whole(1), "data of messages that may be outstanding in a worker", default=32 * 1024 * 1024
    )
    webhook_secrets: tuple[str, ...] = setting(
        "WEBHOOK_SECRETS",
        names,
        "secrets that webhooks are signed with, each by itself: `whsec_` and base64, or a text; without any they are not signed",
        default=(),
    )
    webhook_allow_private: bool = setting(
        "WEBHOOK_ALLOW_PRIVATE",
        flag,
        "whether webhooks may go to private addresses, and to this machine without TLS",
        default=False,
    )
    log_level: str = log_level_setting()
    telemetry: tuple[str, ...] = telemetry_setting()
    watchdog_s: float = setting(
        "WATCHDOG_S", seconds(1), "how long a thread of the worker may send no heartbeat before the worker ends stuck", default=180.0
    )
    job: str = setting("CLOUD_RUN_JOB", text, "set by Cloud Run", default="local")
    execution: str = setting("CLOUD_RUN_EXECUTION", text, "set by Cloud Run", default="local")
    index: int = setting("CLOUD_RUN_TASK_INDEX", whole(0), "set by Cloud Run", default=0)
    count: int = setting("CLOUD_RUN_TASK_COUNT", whole(1), "set by Cloud Run", default=1)
    retry: int = setting("CLOUD_RUN_TASK_ATTEMPT", whole(0), "set by Cloud Run; 0 is the first try", default=0)

    @property
    def lane_name(self) -> str:
        return self.lane or self.job

    @property
    def forms(self) -> Forms:
        """Those of the messages that are taken."""
        return Forms(self.accept, self.default_type, self.event_types, self.subscription_name)

    @property
    def share(self) -> int:
        """What this worker may take: its part of BACKLOG, else MAX_MESSAGES."""
        return self.max_messages if self.backlog is None else share(self.backlog, self.count, self.index)

    @property
    def most(self) -> int:
        """What this worker may take in all: more than its share only if a controller launched it, and only in the time that is billed
        anyway."""
        if not self.decision_id or not self.billing_floor_s:
            return self.share
        return sys.maxsize if self.share_limit is None else max(self.share, self.share_limit)


def worker_settings(environment: Mapping[str, str]) -> WorkerSettings:
    """Raises SettingsError with every problem."""
    problems = _index_problems(environment)
    try:
        settings = read(WorkerSettings, environment)
    except SettingsError as error:
        raise SettingsError([*error.problems, *problems]) from None
    if settings.prefetch_s * 2 > settings.task_timeout_s:
        problems.append(f"PREFETCH_S={settings.prefetch_s:g}: must be at most half of TASK_TIMEOUT_S={settings.task_timeout_s:g}")
    if settings.handler_timeout_s is not None and (problem := limit_problem(settings.handler_timeout_s, settings.task_timeout_s)):
        problems.append(problem)
    if problem := forms_problem(settings.accept, settings.default_type):
        problems.append(problem)
    if problems:
        raise SettingsError(problems)
    return settings


def forms_problem(accept: Container[str], default_type: str) -> str:
    """Why a lane cannot take these forms of messages; empty if it can."""
    if default_type.startswith(BUILT_IN):
        return f"DEFAULT_TYPE={default_type!r}: is one of Fanout's own types; name one of your handlers'"
    if lacking := untyped(accept, default_type):
        return f"DEFAULT_TYPE is not set: messages that are taken as {' and '.join(lacking)} name no task type; name a handler's"
    return ""


def limit_problem(handler_timeout_s: float, task_timeout_s: float) -> str:
    """Why a lane's time limit of handlers does not go with its task timeout; empty if it does."""
    if handler_timeout_s <= task_timeout_s / 2:
        return ""
    return (
        f"HANDLER_TIMEOUT_S={handler_timeout_s:g}: must be at most half of TASK_TIMEOUT_S={task_timeout_s:g}, or the worker's end would "
        "cut off most handlers that hang, and not their limit"
    )


def _index_problems(environment: Mapping[str, str]) -> list[str]:
    """Problems of two settings that are each right by itself."""
    index, count = environment.get("CLOUD_RUN_TASK_INDEX", "0"), environment.get("CLOUD_RUN_TASK_COUNT", "1")
    if not (index.isdecimal() and count.isdecimal()) or int(index) < int(count):
        return []
    return [f"CLOUD_RUN_TASK_INDEX={index!r}: must be below CLOUD_RUN_TASK_COUNT={count}"]
