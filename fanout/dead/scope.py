"""Which dead letters a command is about, and where they are: the options that filters are made of, the lanes, the bucket, and who acts."""

from __future__ import annotations

import configparser
import getpass
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from batch.dead import segments
from batch.dead.filters import Filter
from batch.dead.lanes import UNKNOWN_LANE, LaneFacts, read_lanes, without_topic
from batch.model.clock import SystemClock, from_iso, iso
from batch.model.errors import SettingsError
from batch.services.ports import ObjectStore
from controller.config import ControllerSettings
from controller.model.wording import duration
from fanout import cloud

NO_MATCH = "no dead letter that waits matches"


@dataclass(frozen=True, slots=True)
class Scope:
    """`lanes` are those to look at: of `all_lanes`, or without a topic for a log of letters of no lane. All of them match `wanted`."""

    settings: ControllerSettings
    store: ObjectStore
    lanes: Sequence[LaneFacts]
    all_lanes: Mapping[str, LaneFacts]
    wanted: Filter


def when(_: click.Context, param: click.Parameter, value: str | None) -> str:
    """Of an option: a time, as an age (`2h`) or as ISO 8601, in ISO 8601; empty where none is given."""
    try:
        return iso(SystemClock().now() - duration(value)) if value else ""
    except ValueError:
        pass
    try:
        return iso(from_iso(value or ""))
    except ValueError as error:
        what = f"{value!r} is no age such as 90s, 10m, 2h or 7d, and no time such as 2026-01-31T12:00:00Z"
        raise click.BadParameter(what, param=param) from error


_FILTERS = (
    click.option("--lane", "lanes", multiple=True, help="Of this lane; of all by default."),
    click.option("--type", "task_types", multiple=True, help="Of tasks of this type."),
    click.option("--fingerprint", "fingerprints", multiple=True, help="Of this group of `fanout dead ls`."),
    click.option("--error", "error_types", multiple=True, help="With this type of error, such as KeyError."),
    click.option("--submission", "submissions", multiple=True, help="Of this submission."),
    click.option("--id", "task_ids", multiple=True, help="Of this task."),
    click.option("--newer-than", "died_after", callback=when, metavar="AGE|TIME", help="Dead for less than an age, or since a time."),
    click.option("--older-than", "died_before", callback=when, metavar="AGE|TIME", help="Dead for longer than an age, or before a time."),
    click.option("--text", default="", help="With this text in the payload or the reason, in any case."),
)
"""Each of those that may be given several times holds for any of its values."""


def with_scope(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a filter; the command gets them, with the bucket and its lanes, as `scope`."""

    @wraps(function)
    def command(*, settings: ControllerSettings, lanes: tuple[str, ...], **arguments: Any) -> Any:
        conditions = {name: arguments.pop(name) for name in Filter.__dataclass_fields__}
        wanted = Filter(**{**conditions, "task_ids": frozenset(conditions["task_ids"])})
        with opened(settings, lanes, wanted) as scope:
            return function(scope=scope, **arguments)

    for option in reversed(_FILTERS):
        command = option(command)
    return cloud.with_settings(command)


@contextmanager
def opened(settings: ControllerSettings, names: Sequence[str], wanted: Filter) -> Iterator[Scope]:
    """These lanes, or all; also the log of letters of no lane, and by name that of a lane that is gone. Raises SettingsError,
    DependencyError."""
    with cloud.open_store(settings.project, settings.bucket_name) as store:
        known = read_lanes(store)
        if not known:
            raise SettingsError([f"bucket {settings.bucket_name} names no lanes yet: run `fanout tick`, which writes them down"])
        lost = [name for name in dict.fromkeys((UNKNOWN_LANE, *names)) if name not in known and any(segments.listed(store, name))]
        all_logs = {**known, **{name: without_topic(name) for name in lost}}
        unknown = [f"there is no lane {name!r}; known are {', '.join(known)}" for name in names if name not in all_logs]
        if unknown:
            raise SettingsError(unknown)
        yield Scope(settings, store, [all_logs[name] for name in names or all_logs], known, wanted)


def who() -> str:
    """Whom the log names: gcloud's account, else the user of this machine."""
    account = os.environ.get("CLOUDSDK_CORE_ACCOUNT", "")
    folder = Path(os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud")
    try:
        active = os.environ.get("CLOUDSDK_ACTIVE_CONFIG_NAME") or (folder / "active_config").read_text(encoding="utf-8").strip()
        read = configparser.ConfigParser(interpolation=None)
        read.read(folder / "configurations" / f"config_{active}", encoding="utf-8")
        account = account or read.get("core", "account", fallback="")
    except (OSError, ValueError, configparser.Error):
        pass  # gcloud is not set up here
    try:
        return account or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
