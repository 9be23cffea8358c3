"""What the commands of `fanout local` share: finding the running local cloud, and printing its environment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from local_cloud.supervisor import record
from local_cloud.supervisor.child import ServiceFailed
from local_cloud.supervisor.record import Record

STATE_DIR = Path(".local-cloud/up")

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=STATE_DIR,
    show_default=True,
    help="Where the local cloud keeps its state.",
)
format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["shell", "json", "dotenv"]),
    default="shell",
    show_default=True,
    help="How to print the environment.",
)


def formatted(environment: Mapping[str, str], style: str) -> str:
    """`export NAME=value` lines, NAME=value lines, or a JSON object."""
    if style == "json":
        return json.dumps(dict(environment), indent=1)
    prefix = "export " if style == "shell" else ""
    return "\n".join(f"{prefix}{name}={shlex.quote(value)}" for name, value in environment.items())


def down_command(state_dir: Path) -> str:
    """The command that ends the local cloud there."""
    return "fanout local down" if state_dir == STATE_DIR else f"fanout local down --state-dir {shlex.quote(str(state_dir))}"


def found(state_dir: Path) -> Record | None:
    """Raises ClickException on a record that cannot be read."""
    try:
        return record.read(state_dir)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def running(state_dir: Path) -> Record:
    """Raises ClickException when no local cloud runs there."""
    there = found(state_dir)
    if there is None:
        raise click.ClickException(f"no local cloud runs in {state_dir}: start one with `fanout local up`, or name its --state-dir")
    return there


@contextmanager
def told() -> Iterator[None]:
    """What a service refuses becomes the command's message."""
    try:
        yield
    except ServiceFailed as error:
        raise click.ClickException(str(error)) from error
