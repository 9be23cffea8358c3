"""Lanes, read from the labels and annotations of Cloud Run Jobs. The manifest is the only place that an operator edits.

A job with the label `fanout-lane` is a lane. All its problems are reported at once; a lane with a problem is never ticked on a guess.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batch.dead.rules import ANY, NO_RULES, SLOWEST_RATE
from batch.formats.kinds import event_types, formats
from batch.model.errors import MessageRefused, SettingsError
from batch.model.message import check_task_type
from batch.model.names import RESERVED_LANES
from batch.settings import whole
from controller.model.lane import Policy, Strategy
from controller.model.schedule import FORM, schedule_of
from controller.model.wording import duration
from controller.observe.jobs import LANE_LABEL, LANE_PREFIX

MAX_MESSAGES = "fanout/max-messages"
SCHEDULE = "fanout/schedule-"
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9._~%+-]{2,254}")
_ERROR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,254}")
_LANE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def resource_name(text: str) -> str:
    """A Pub/Sub name. Raises ValueError with the rule."""
    if not _RESOURCE.fullmatch(text) or text.startswith("goog"):
        raise ValueError("the short name of a Pub/Sub resource: a letter, then 2 to 254 letters, digits or ._~%+-")
    return text


def positive(text: str) -> float:
    """A number above 0. Raises ValueError with the rule."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("a number above 0")
    return value


def wait(text: str) -> float:
    """Seconds that may be 0. Raises ValueError with the rule."""
    if text.strip() == "0s":
        return 0.0
    try:
        return duration(text)
    except ValueError as error:
        raise ValueError(f"0s (never wait), or {error}") from None


def lane_name(text: str) -> str:
    """Raises ValueError with the rule."""
    if not _LANE.fullmatch(text):
        raise ValueError("the name of a lane")
    return text


def replay_rate(text: str) -> float:
    """Raises ValueError with the rule."""
    if positive(text) < SLOWEST_RATE:
        raise ValueError(f"a number of at least {SLOWEST_RATE}: an execution of the dead-letters job must come to its first message")
    return float(text)


def flag(text: str) -> bool:
    """`true` or `false`. Raises ValueError with the rule."""
    if text not in ("true", "false"):
        raise ValueError('"true" or "false"')
    return text == "true"


def strategy(text: str) -> Strategy:
    """A strategy by its name. Raises ValueError with all names."""
    try:
        return Strategy(text)
    except ValueError:
        near = difflib.get_close_matches(text, list(Strategy), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"one of {', '.join(Strategy)}{hint}") from None


def task_type(text: str) -> str:
    """Raises ValueError with the rule."""
    try:
        check_task_type(text)
    except MessageRefused as error:
        raise ValueError(str(error)) from None
    return text


def errors(text: str) -> tuple[str, ...]:
    """Types of errors and fingerprints. Raises ValueError with the rule."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(part == ANY or _ERROR.fullmatch(part) for part in found):
        raise ValueError('types of errors, such as TimeoutError, or fingerprints, separated by commas; or "*" for all')
    return found


@dataclass(frozen=True, slots=True)
class Annotation:
    """How one annotation is read. `field` is the name in Policy, or in Lane where `required`."""

    field: str
    parse: Callable[[str], Any]
    help_text: str
    required: bool = False


ANNOTATIONS: Mapping[str, Annotation] = {
    "fanout/subscription": Annotation("subscription", resource_name, "the subscription to drain", required=True),
    "fanout/topic": Annotation("topic", resource_name, "the topic that clients' tasks are published to", required=True),
    MAX_MESSAGES: Annotation(
        "max_messages", whole(1), "the most messages that one worker takes, however short they are; without it, what fits into its time"
    ),
    "fanout/first-share": Annotation(
        "first_share", whole(1), "the most messages of a worker while nothing is learned of how long they take"
    ),
    "fanout/min-workers": Annotation("min_workers", whole(0), "the fewest workers of a launch"),
    "fanout/max-workers": Annotation("max_workers", whole(1), "the most workers alive at a time"),
    "fanout/drain-within": Annotation("drain_within_s", duration, "how soon a backlog is to be drained"),
    "fanout/weight": Annotation("weight", positive, "the lane's part where lanes share a budget"),
    "fanout/paused": Annotation("paused", flag, "launch nothing; what runs goes on"),
    "fanout/strategy": Annotation(
        "strategy",
        strategy,
        "how a launch is sized: `deadline` (the cheapest number that drains in time), `share` (one worker for each `fanout/max-messages`, "
        "or `fanout/first-share`), `fixed`",
    ),
    "fanout/fixed-workers": Annotation("fixed_workers", whole(0), "workers alive at a time while there is work, with the strategy `fixed`"),
    "fanout/max-in-flight": Annotation("max_in_flight", whole(1), "the most messages in work at a time, over all workers"),
    "fanout/rate": Annotation("rate", positive, "messages a second that the handlers' dependencies can take, over all workers"),
    "fanout/min-backlog": Annotation(
        "min_backlog", whole(0), "fewer messages wait for more, to fill the minute that a worker is billed for"
    ),
    "fanout/max-wait": Annotation(
        "max_wait_s",
        wait,
        "how long messages wait at most, so that one worker does more of them at once; `0s`: never; half of drain-within by default",
    ),
    "fanout/floor": Annotation("floor", whole(0), "workers kept for the lane where lanes share a budget"),
    "fanout/probe-after": Annotation("probe_after_s", duration, "how long the backlog may be unknown before one worker looks"),
    "fanout/replay-errors": Annotation(
        "replay_errors",
        errors,
        "which dead letters the `dead-letters` job replays by itself: types of errors or fingerprints, separated by commas, or `*`; none "
        "by default",
    ),
    "fanout/replay-after": Annotation(
        "replay_after_s", duration, "how long such a letter waits first, and up to as much again; twice as long after each replay"
    ),
    "fanout/replay-times": Annotation("replay_times", whole(1), "a task that was replayed so often waits for a person"),
    "fanout/replay-rate": Annotation("replay_rate", replay_rate, "replays a second"),
    "fanout/callbacks": Annotation("callbacks", lane_name, "the lane whose workers fire the ends of this lane's submissions"),
    "fanout/accept": Annotation(
        "accept",
        formats,
        "the forms of messages that workers take, separated by commas: `envelope` (the default), `raw`, `gcs-notification`, `cloudevents`",
    ),
    "fanout/default-type": Annotation("default_type", task_type, "the task type of messages that name none"),
    "fanout/event-types": Annotation(
        "event_types", event_types, "which events of a bucket's notifications are run; others are acknowledged as cancelled"
    ),
    "fanout/start-within": Annotation(
        "start_within_s", duration, "how late an execution may start before others take its messages; 12h for delayed jobs, else 10m"
    ),
    f"{SCHEDULE}<name>": Annotation("schedules", str, f"a task that is submitted again and again: {FORM}"),
}


def read_policy(path: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> tuple[str, str, str, Policy]:
    """Name, subscription, topic and policy of a lane. Raises SettingsError with all problems, each beginning with `path`."""
    problems: list[str] = []
    name = labels.get(LANE_LABEL, "")
    if LANE_LABEL not in labels:
        problems.append(f"{path}.labels[{LANE_LABEL}] is not set, and its annotations are a lane's: set it to the lane's name")
    elif not _LANE.fullmatch(name):
        problems.append(f"{path}.labels[{LANE_LABEL}]={name!r}: the lane's name, lower-case letters, digits and hyphens, at most 63")
    if name in RESERVED_LANES:
        problems.append(f"{path}.labels[{LANE_LABEL}]={name!r}: no lane can be called {', '.join(sorted(RESERVED_LANES))}")
    values: dict[str, Any] = {}
    schedules = sorted(key for key in annotations if key.startswith(SCHEDULE))
    for key in schedules:
        try:
            values["schedules"] = (*values.get("schedules", ()), schedule_of(key.removeprefix(SCHEDULE), annotations[key]))
        except ValueError as error:
            problems.append(_wrong(path, key, annotations[key], error))
    for key, rule in ANNOTATIONS.items():
        if key in annotations and key not in schedules:
            try:
                values[rule.field] = rule.parse(annotations[key])
            except ValueError as error:
                problems.append(_wrong(path, key, annotations[key], error))
        elif rule.required:
            problems.append(f"{path}.annotations[{key}] is not set: {rule.help_text}")
    problems += [_unknown(path, key) for key in annotations if key.startswith(LANE_PREFIX) and key not in (*ANNOTATIONS, *schedules)]
    topic, subscription = str(values.pop("topic", "")), str(values.pop("subscription", ""))
    policy = Policy(**values)
    problems += _relation_problems(path, policy)
    if problems:
        raise SettingsError(problems)
    return name, subscription, topic, policy


def _relation_problems(path: str, policy: Policy) -> list[str]:
    most = policy.max_workers
    small = {"min-workers": policy.min_workers, "fixed-workers": policy.fixed_workers, "floor": policy.floor}
    problems = [
        f"{path}: fanout/{name}={value} must not be above fanout/max-workers={most}" for name, value in small.items() if value > most
    ]
    if policy.strategy is Strategy.FIXED and not policy.fixed_workers:
        problems.append(f"{path}: fanout/strategy=fixed needs fanout/fixed-workers: how many")
    if policy.min_backlog and policy.max_wait_s == 0:
        problems.append(f"{path}: fanout/min-backlog does nothing with fanout/max-wait=0s, which never waits: leave one of them out")
    if policy.rules != NO_RULES and not policy.replay_errors:
        problems.append(f"{path}: fanout/replay-after, -times and -rate do nothing without fanout/replay-errors: which errors")
    return problems


def _wrong(path: str, key: str, value: str, error: ValueError) -> str:
    return f"{path}.annotations[{key}]={value[:200]!r}: {error}"


def _unknown(path: str, key: str) -> str:
    near = difflib.get_close_matches(key, ANNOTATIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ANNOTATIONS)}"
    return f"{path}.annotations[{key}] is not an annotation of Fanout; {hint}"
