"""Writes docs/reference.md from the code: `make docs`. A test fails when the page is not what this module writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click

from batch.dead.draining.settings import DeadLetterSettings
from batch.events import EVENTS
from batch.model.exit import EXIT_CODES, ExitReason
from batch.settings import WorkerSettings, default_text
from controller.config import ControllerSettings
from controller.lanes.annotations import ANNOTATIONS
from controller.model.lane import Policy
from controller.model.wording import duration, spoken
from fanout.commands import COMMANDS, main
from intake.config import IntakeSettings
from local_cloud.faults import kinds as fault_kinds
from tests.deploy.permissions import page as permissions

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
LOCAL_CLOUD = PAGE.with_name("local-cloud.md")
FAULTS_BEGIN = "<!-- faults: written by `make docs` -->"
FAULTS_END = "<!-- end of faults -->"

EXIT_REASONS = {
    ExitReason.SHARE_DONE: "it took its whole share, and no message is outstanding",
    ExitReason.DRAINED: "several pulls in a row, over `DRAIN_AFTER_S`, found nothing while no message was outstanding",
    ExitReason.OUT_OF_TIME: "the task timeout is near; it nacked what had not started",
    ExitReason.STOPPED: "SIGTERM or SIGINT; it nacked at once what had not started",
    ExitReason.NOT_CLAIMED: "another execution does the work of this decision; it pulled nothing",
    ExitReason.BROKEN: "a service is missing, forbidden or down (no attempt was spent), most tasks fail with one error, or handlers hang",
    ExitReason.STUCK: "one of its own threads sent no heartbeat for `WATCHDOG_S`; the stacks are in the log, it nacked every message",
}


def page() -> str:
    """The whole page."""
    parts = [
        "# Reference",
        "Written from the code by `make docs`; a test fails when it is out of date.",
        "## Commands",
        *[_command(name) for name in COMMANDS],
        "## Settings of a worker (`python -m batch`)",
        "Cloud Run and the controller set them in the environment; each is also an option, `--subscription-name` for `SUBSCRIPTION_NAME`.",
        _settings(WorkerSettings),
        "## Settings of the dead-letters job (`python -m batch dead-letters`)",
        "Each is also an option.",
        _settings(DeadLetterSettings),
        "## Settings of the controller (`python -m controller`, `fanout tick`)",
        _settings(ControllerSettings),
        "## Annotations of a lane (`jobs.yaml`)",
        "They stand on a Cloud Run Job that carries the label `fanout-lane`; all values are texts. See [sizing](sizing.md).",
        _annotations(),
        "## Settings of the front door (`python -m intake`)",
        _settings(IntakeSettings),
        "## How a worker ends",
        _table(("exit reason", "meaning"), [(f"`{reason.value}`", text) for reason, text in EXIT_REASONS.items()]),
        _table(("exit code", "meaning"), [(f"{code}", text) for code, text in EXIT_CODES.items()]),
        "## Events in the log",
        "One JSON object a line: `severity`, `time`, `message`, `event`, and the event's own fields.",
        _table(("event", "severity", "meaning"), [(f"`{name}`", level, text) for name, (level, text) in EVENTS.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _settings(kind: type[Any]) -> str:
    rows = []
    for one in fields(kind):
        default = "required" if one.default is MISSING else _shown(one.default)
        rows.append((f"`{one.metadata['env']}`", default, str(one.metadata["help"])))
    return _table(("setting", "default", "meaning"), rows)


def _annotations() -> str:
    defaults = {one.name: one.default for one in fields(Policy)}
    rows = []
    for name, one in ANNOTATIONS.items():
        default = "required" if one.required else _shown(defaults[one.field]).lower()
        if one.parse is duration and defaults[one.field] is not None:
            default = f"`{spoken(float(str(defaults[one.field]))).replace(' min', 'm').replace(' s', 's')}`"
        rows.append((f"`{name}`", default, one.help_text))
    return _table(("annotation", "default", "meaning"), rows)


def _shown(default: object) -> str:
    return f"`{shown}`" if (shown := default_text(default)) else ""


def _command(name: str) -> str:
    context = click.Context(main, info_name="fanout")
    command = main.get_command(context, name)
    assert command is not None, name
    return "\n\n".join(_helps(command, f"fanout {name}"))


def _helps(command: click.Command, path: str) -> list[str]:
    context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100)
    texts = [f"### `{path}`\n\n```text\n{command.get_help(context)}\n```"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            texts += _helps(child, f"{path} {name}")
    return texts


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows])


def with_faults(text: str) -> str:
    """The page of the local cloud with its table of faults as the code has it."""
    before, rest = text.split(FAULTS_BEGIN)
    _, after = rest.split(FAULTS_END)
    return f"{before}{FAULTS_BEGIN}\n\n{fault_kinds.markdown().strip()}\n\n{FAULTS_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    permissions.PAGE.write_text(permissions.page(), encoding="utf-8")
    LOCAL_CLOUD.write_text(with_faults(LOCAL_CLOUD.read_text(encoding="utf-8")), encoding="utf-8")
