"""`fanout local`: start the local cloud, print its environment, see how it is, end it.

`up` stays in the foreground and takes everything with it when it ends; the other commands only read its record.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import click

from local_cloud import record
from local_cloud.child import ServiceFailed
from local_cloud.record import Record
from local_cloud.supervisor import LocalCloud, Options, call

STATE_DIR = Path(".local-cloud/up")
DOWN_S = 30.0

state_dir_option = click.option(
    "--state-dir", type=click.Path(path_type=Path, file_okay=False), default=STATE_DIR, show_default=True, help="Where it keeps its state."
)
format_option = click.option(
    "--format", "style", type=click.Choice(["shell", "json", "dotenv"]), default="shell", show_default=True, help="How to print it."
)


@click.group()
def command() -> None:
    """Start and use the local cloud."""


@command.command()
@state_dir_option
@format_option
@click.option("--storage-port", type=int, default=0, help="Port of Cloud Storage; 0 takes a free one, here and below.")
@click.option("--pubsub-port", type=int, default=0, help="gRPC port of Pub/Sub and Monitoring.")
@click.option("--pubsub-http-port", type=int, default=0, help="Port for the clock, the gauges and the health of Pub/Sub.")
@click.option("--run-port", type=int, default=0, help="Port of Cloud Run.")
@click.option("--sample-period-s", type=click.FloatRange(0), default=60.0, show_default=True, help="Between two samples of the gauge.")
@click.option("--visibility-lag-s", type=click.FloatRange(0), default=120.0, show_default=True, help="Until a sample can be read.")
@click.option("--quick", is_flag=True, help="The gauge is exact at once: sample period and lag are 0.")
@click.option("--max-processes", type=click.IntRange(1), default=64, show_default=True, help="Workers at a time.")
def up(
    state_dir: Path,
    style: str,
    quick: bool,
    sample_period_s: float,
    visibility_lag_s: float,
    max_processes: int,
    storage_port: int,
    pubsub_port: int,
    pubsub_http_port: int,
    run_port: int,
) -> None:
    """Start the local cloud and keep it until Ctrl-C.

    Prints the environment that sends clients there: `eval "$(fanout local env)"` in another terminal uses it. Objects, jobs and logs
    stay in the state folder and are there again at the next start; topics, subscriptions and messages are not.
    """
    _refuse_second(state_dir)
    options = Options(
        pubsub_port=pubsub_port,
        pubsub_http_port=pubsub_http_port,
        storage_port=storage_port,
        run_port=run_port,
        sample_period_s=0.0 if quick else sample_period_s,
        visibility_lag_s=0.0 if quick else visibility_lag_s,
        max_processes=max_processes,
    )
    _serve(LocalCloud(state_dir, options), style)


def _serve(cloud: LocalCloud, style: str) -> None:
    """Run the local cloud until a signal comes or a service dies."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.set())
    try:
        with cloud:
            record.write(cloud.state_dir, os.getpid(), cloud.addresses, cloud.pids)
            click.echo(formatted(cloud.environment, style))
            click.echo(f"# the local cloud runs, state in {cloud.state_dir}; Ctrl-C ends it", err=True)
            # Short waits, because a signal only interrupts a wait of the main thread in between.
            while not ended.wait(0.2) and not cloud.died.is_set():
                pass
            cloud.check()
    except ServiceFailed as error:
        raise click.ClickException(str(error)) from error
    finally:
        record.remove(cloud.state_dir)


@command.command()
@state_dir_option
@format_option
def env(state_dir: Path, style: str) -> None:
    """Print the environment of the running local cloud: eval "$(fanout local env)"."""
    click.echo(formatted(_running(state_dir).addresses.environment, style))


@command.command()
@state_dir_option
def status(state_dir: Path) -> None:
    """Ask each service how it is; ends with 1 when one does not answer."""
    found = _running(state_dir)
    failures = []
    for name, url in found.addresses.http.items():
        try:
            facts = {key: value for key, value in call(name, url).items() if key not in ("service", "status")}
            click.echo(f"{name:8} process {found.services.get(name, '?'):<8} {url}  {json.dumps(facts) if facts else 'ok'}")
        except ServiceFailed as error:
            failures.append(str(error))
    if failures:
        raise click.ClickException("\n".join(failures))


@command.command()
@state_dir_option
def down(state_dir: Path) -> None:
    """End the running local cloud, and all workers with it."""
    found = _found(state_dir)
    if found is None:
        click.echo(f"no local cloud runs in {state_dir}")
        return
    os.kill(found.pid, signal.SIGTERM)
    tick = threading.Event()
    for _ in range(int(DOWN_S / 0.05)):
        if _found(state_dir) is None:  # the record goes last, after the services
            click.echo(f"the local cloud in {state_dir} has ended")
            return
        tick.wait(0.05)
    raise click.ClickException(f"process {found.pid} has not ended within {DOWN_S:g} s: kill -9 {found.pid} ends it and its services")


def formatted(environment: Mapping[str, str], style: str) -> str:
    """`export NAME=value` lines, NAME=value lines, or a JSON object."""
    if style == "json":
        return json.dumps(dict(environment), indent=1)
    prefix = "export " if style == "shell" else ""
    return "\n".join(f"{prefix}{name}={shlex.quote(value)}" for name, value in environment.items())


def _found(state_dir: Path) -> Record | None:
    try:
        return record.read(state_dir)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _running(state_dir: Path) -> Record:
    found = _found(state_dir)
    if found is None:
        raise click.ClickException(f"no local cloud runs in {state_dir}: start one with `fanout local up`, or name its --state-dir")
    return found


def _refuse_second(state_dir: Path) -> None:
    found = _found(state_dir)
    if found is not None:
        raise click.ClickException(f"a local cloud runs in {state_dir} already (process {found.pid}): end it with `fanout local down`")
