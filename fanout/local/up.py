"""`fanout local up`, `down` and `reset`: start the local cloud, end it, delete its state.

What `up` starts ends with it, however it ends. With `--detach` a second process serves, and `up` returns.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fanout.local.running import down_command, format_option, formatted, found, state_dir_option
from local_cloud.supervisor import record, state_folder
from local_cloud.supervisor.child import ServiceFailed
from local_cloud.supervisor.control import Control
from local_cloud.supervisor.folder_lock import FolderLock, InUse
from local_cloud.supervisor.record import Record
from local_cloud.supervisor.supervisor import LocalCloud, Options

DOWN_S = 30.0
START_S = 60.0
LOG = "up.log"
PORT = click.IntRange(0, 65535)


@click.command()
@state_dir_option
@format_option
@click.option("--quick", is_flag=True, help="The gauge is exact at once: sample period and lag are 0.")
@click.option("--detach", is_flag=True, help="Return when it runs; `fanout local down` ends it.")
@click.option("--pubsub-port", type=PORT, default=0, help="gRPC port of Pub/Sub and Monitoring; 0 takes a free one, here and below.")
@click.option("--pubsub-http-port", type=PORT, default=0, help="HTTP port of Pub/Sub: its REST form, clock, gauges and faults.")
@click.option("--storage-port", type=PORT, default=0, help="Port of Cloud Storage.")
@click.option("--run-port", type=PORT, default=0, help="Port of Cloud Run.")
@click.option("--sample-period-s", type=click.FloatRange(0), default=60.0, show_default=True, help="Between two samples of the gauge.")
@click.option("--visibility-lag-s", type=click.FloatRange(0), default=120.0, show_default=True, help="Until a sample can be read.")
@click.option("--max-processes", type=click.IntRange(1), default=64, show_default=True, help="The most workers at a time.")
@click.option("--startup-delay-s", type=click.FloatRange(0), default=0.0, show_default=True, help="Until a worker's process starts.")
@click.option("--startup-spread", type=click.FloatRange(0), default=0.0, show_default=True, help="Deviation of that delay's logarithm.")
@click.option(
    "--delayed-start-s",
    type=click.FloatRange(0, 12 * 3600),
    default=3600.0,
    show_default=True,
    help="Until executions of delayed jobs start.",
)
@click.option("--seed", type=int, default=None, help="Makes those delays, and the names that Cloud Run makes up, repeatable.")
def up(state_dir: Path, style: str, quick: bool, detach: bool, **settings: Any) -> None:
    """Start the local cloud and keep it until Ctrl-C.

    Prints the environment that sends clients there: `eval "$(fanout local env)"` in another terminal uses it. The state stays in its
    folder (messages, objects, jobs, executions, logs) and is there again at the next start.
    """
    there = found(state_dir)
    if there is not None:
        raise click.ClickException(
            f"a local cloud runs in {state_dir} already (process {there.pid}): end it with `{down_command(state_dir)}`"
        )
    if quick:
        settings |= {"sample_period_s": 0.0, "visibility_lag_s": 0.0}
    try:
        state_folder.claim(state_dir)
        options = Options(**settings)
        if detach:
            _detached(state_dir, options, style)
        else:
            _serve(LocalCloud(state_dir, options), style)
    except state_folder.NotOurs as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(state_folder.unusable(state_dir, error)) from error


def _serve(cloud: LocalCloud, style: str) -> None:
    """Run the local cloud until a signal comes or a service dies."""
    heard: list[int] = []  # no Event: its lock may be held by this very thread when a signal comes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: heard.append(number))

    def write_record() -> None:
        record.write(cloud.state_dir, os.getpid(), cloud.addresses, cloud.pids)

    try:
        with cloud, Control(cloud, write_record):
            write_record()
            click.echo(formatted(cloud.environment, style))
            click.echo(f"# the local cloud runs, state in {cloud.state_dir}; Ctrl-C ends it", err=True)
            # Short waits, because a signal only interrupts a wait of the main thread in between.
            while not heard and not cloud.died.wait(0.2):
                pass
            cloud.check()
    except ServiceFailed as error:
        raise click.ClickException(str(error)) from error
    finally:
        record.remove(cloud.state_dir)


def _detached(state_dir: Path, options: Options, style: str) -> None:
    """Start ourselves once more, as a process that nobody waits for."""
    known = {parameter.name for parameter in up.params}
    given = {name: value for name, value in asdict(options).items() if name in known and value is not None}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "fanout", "local", "up", "--state-dir", str(state_dir), *words]
    log = state_dir / LOG
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        there = _started(process, state_dir, log)
    except BaseException:  # Ctrl-C reaches only us
        process.terminate()
        process.wait()
        raise
    click.echo(formatted(there.addresses.environment, style))
    click.echo(f"# the local cloud runs (process {there.pid}), state in {state_dir}; `{down_command(state_dir)}` ends it", err=True)


def _started(process: subprocess.Popen[bytes], state_dir: Path, log: Path) -> Record:
    tick = threading.Event()
    for _ in range(int(START_S / 0.05)):
        there = found(state_dir)
        if there is not None:
            return there
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip().removeprefix("Error: ")
            raise click.ClickException(f"it did not start: {said or f'exit code {process.returncode}'}")
        tick.wait(0.05)
    raise click.ClickException(f"it was not ready within {START_S:g} s: see {log}")


@click.command()
@state_dir_option
def down(state_dir: Path) -> None:
    """End the running local cloud, and all workers with it. Its state stays."""
    there = found(state_dir)
    if there is None:
        click.echo(f"no local cloud runs in {state_dir}")
        return
    os.kill(there.pid, signal.SIGTERM)
    tick = threading.Event()
    for _ in range(int(DOWN_S / 0.05)):
        if found(state_dir) is None:  # the record goes last, after the services
            click.echo(f"the local cloud in {state_dir} has ended")
            return
        tick.wait(0.05)
    raise click.ClickException(f"process {there.pid} has not ended within {DOWN_S:g} s: kill -9 {there.pid} ends it and its services")


@click.command()
@state_dir_option
def reset(state_dir: Path) -> None:
    """Delete its state.

    Messages, objects, jobs, executions and logs. The local cloud must not run.

    Refuses a folder that `fanout local up` has not made, and deletes nothing that it has not put there.
    """
    if found(state_dir) is not None:
        raise click.ClickException(f"a local cloud runs in {state_dir}: end it first with `{down_command(state_dir)}`")
    if not state_dir.exists():
        click.echo(f"there is no state in {state_dir}")
        return
    lock = FolderLock(state_dir)
    try:
        state_folder.check_ours(state_dir)
        lock.take()
        left = state_folder.delete(state_dir)
    except (state_folder.NotOurs, InUse) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or state_dir} cannot be deleted: {error.strerror or error}") from error
    finally:
        lock.release()
    click.echo(f"deleted the state in {state_dir}" + (f"; left there, as it is not ours: {', '.join(left)}" if left else ""))
