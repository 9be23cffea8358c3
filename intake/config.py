"""The settings of the front door, from the environment. Nothing is read at import."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from batch.model.errors import SettingsError
from batch.model.message import MAX_MESSAGE_BYTES
from batch.serving.oidc import audience_setting, certs_url_setting, issuer_problem, issuer_setting
from batch.settings import BILLING_HELP, BY_METADATA, log_level_setting, names, read, seconds, setting, telemetry_setting, text, whole
from intake.rules import keys_of, problems_of, rules_of

NO_TOPIC = "neither TOPIC_NAME nor LANES is set: name the topic to publish to, or several as lane=topic pairs"
BUCKET_HELP = "where submissions and idempotency keys are recorded; empty: only single tasks are taken, and keys are not checked"
_LANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def lane_map(value: str) -> tuple[tuple[str, str], ...]:
    """`default=topic-a,urgent=topic-b`: pairs of lane and topic."""
    pairs: dict[str, str] = {}
    for part in names(value):
        lane, equals, topic = (piece.strip() for piece in part.partition("="))
        if not equals or not topic or not _LANE.fullmatch(lane) or lane in pairs:
            raise ValueError("pairs lane=topic, each lane once, separated by commas, such as default=topic-a,urgent=topic-b")
        pairs[lane] = topic
    return tuple(pairs.items())


def controller_url(value: str) -> str:
    """`https://host`, or `http://host:port` for one on loopback."""
    parts = urlsplit(value)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise ValueError("the address of the controller without a path: https://…, or http://127.0.0.1:PORT for a local one")
    return f"{parts.scheme}://{parts.netloc}"


def lane_name(value: str) -> str:
    """A name that can stand in the name of a folder."""
    if not _LANE.fullmatch(value):
        raise ValueError("a name of letters, digits, '.', '_' and '-', at most 63 long")
    return value


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """What the front door needs to know. `lanes` maps lanes to topics; use `topics`, which also knows the single TOPIC_NAME."""

    project: str = setting("GOOGLE_CLOUD_PROJECT", text, "the project that holds the topics" + BY_METADATA)
    topic_name: str = setting("TOPIC_NAME", text, "the topic of the default lane, when LANES is not set", default="")
    lane: str = setting("LANE", lane_name, "the lane of a request that names none; the first of LANES by default", default="")
    lanes: tuple[tuple[str, str], ...] = setting("LANES", lane_map, "lanes and their topics", default=())
    handlers: tuple[str, ...] = setting("HANDLERS", names, "modules whose task types are accepted", default=("batch.handlers",))
    host: str = setting("HOST", text, "the address to listen on; by default all, with PUBSUB_EMULATOR_HOST only 127.0.0.1", default="")
    port: int = setting("PORT", whole(0, 65535), "the port to listen on; set by Cloud Run", default=8080)
    max_body_bytes: int = setting("MAX_BODY_BYTES", whole(1, MAX_MESSAGE_BYTES), "larger requests are refused", default=MAX_MESSAGE_BYTES)
    max_waiting: int = setting("MAX_WAITING", whole(1), "tasks of a lane that may wait for the broker", default=10_000)
    max_in_flight: int = setting("MAX_IN_FLIGHT", whole(1, 100), "publish requests of a lane under way at a time", default=4)
    bucket_name: str = setting("BUCKET_NAME", text, BUCKET_HELP, default="")
    billing_project: str = setting("BILLING_PROJECT", text, BILLING_HELP, default="")
    max_submissions: int = setting("MAX_SUBMISSIONS", whole(1, 100), "requests with many tasks that may be under way at a time", default=4)
    publish_timeout_s: float = setting("PUBLISH_TIMEOUT_S", seconds(0.1), "how long the broker may take to confirm", default=10.0)
    log_level: str = log_level_setting()
    telemetry: tuple[str, ...] = telemetry_setting()
    stop_timeout_s: float = setting("STOP_TIMEOUT_S", seconds(0), "how long accepted requests may take after SIGTERM", default=8.0)

    controller_url: str = setting(
        "CONTROLLER_URL",
        controller_url,
        "the controller, which gets a report of accepted tasks at once; empty: it finds them by the gauge",
        default="",
    )
    controller_audience: str = setting("CONTROLLER_AUDIENCE", text, "its OIDC_AUDIENCE; CONTROLLER_URL by default", default="")
    poke_gather_s: float = setting("POKE_GATHER_S", seconds(0), "tasks accepted within this time are reported together", default=0.5)

    oidc_audience: str = audience_setting()
    oidc_issuer: str = issuer_setting()
    oidc_certs_url: str = certs_url_setting()
    api_keys: tuple[tuple[str, bytes], ...] = setting(
        "API_KEYS", keys_of, "lines of a name and a key, out of Secret Manager", default=(), secret=True
    )
    access: tuple[tuple[str, frozenset[str]], ...] = setting(
        "ACCESS", rules_of, "who may do what in which lanes, as JSON; empty: everybody everything", default=()
    )

    @property
    def topics(self) -> dict[str, str]:
        """Topic by lane; the default lane is among them."""
        return dict(self.lanes) or {self.lane or "default": self.topic_name}

    @property
    def default_lane(self) -> str:
        return self.lane or next(iter(self.topics))


def intake_settings(environment: Mapping[str, str]) -> IntakeSettings:
    """Raises SettingsError with every problem."""
    aimless = [] if environment.get("TOPIC_NAME") or environment.get("LANES") else [NO_TOPIC]
    try:
        settings = read(IntakeSettings, environment)
    except SettingsError as error:
        raise SettingsError([*error.problems, *aimless]) from error
    if aimless:
        raise SettingsError(aimless)
    if settings.default_lane not in settings.topics:
        near = difflib.get_close_matches(settings.default_lane, settings.topics, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError([f"LANE={settings.default_lane!r} is not one of LANES ({', '.join(settings.topics)}){hint}"])
    problems = problems_of(settings.access, settings.api_keys, settings.oidc_audience, settings.topics)
    problems += issuer_problem(settings.oidc_issuer, settings.oidc_certs_url)
    if problems:
        raise SettingsError(problems)
    # It does not authenticate its callers: on a laptop other machines must not reach it.
    default_host = "127.0.0.1" if environment.get("PUBSUB_EMULATOR_HOST") else "0.0.0.0"
    return replace(settings, host=settings.host or default_host)
