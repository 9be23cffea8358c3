"""The command itself: options, state folder, signals, exit code. `fanout.demo.run` does what happens in between.

Exit codes: 0 when every task is proven, 1 not proven or failed, 130 after Ctrl-C or SIGTERM. Whatever happens, nothing that it started is
left running.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from batch.model.errors import FanoutError
from fanout.demo import display
from fanout.output import counted
from local_cloud.supervisor import record, state_folder
from local_cloud.supervisor.child import ServiceFailed
from local_cloud.supervisor.supervisor import LocalCloud, Options

STATE_DIR = Path(".local-cloud/demo")
MARKER = ".fanout-demo"
DEATH_SHOWS_S = 1.0
INTERRUPTED = 130
MOST_FILES = 1500
FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EEXIST})
"""Errors that are about the state folder."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The options."""

    file_count: int
    kill_worker: bool
    plain: bool
    state_dir: Path
    seed: int
    limit_s: float
    jobs: Path | None
    after: str


@click.command()
@click.option("--files", "file_count", type=click.IntRange(10), default=MOST_FILES, show_default=True, help="The most files to process.")
@click.option("--kill-worker", is_flag=True, help="Kill a worker in the middle of its share.")
@click.option("--plain", is_flag=True, help="Lines only, as when standard output is no terminal.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=STATE_DIR,
    show_default=True,
    help="Where the local cloud keeps its state; replaced at each start.",
)
@click.option("--seed", type=int, help="Repeats the choice of files and of the worker to kill.")
@click.option("--keep-going-s", "limit_s", type=click.FloatRange(1), default=300.0, show_default=True, help="Give up after this.")
@click.option("--jobs", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Instead of the jobs.yaml of Fanout.")
@click.option("--after", default="", metavar="COMMAND", help="Run by the shell at the end, while the local cloud is still up.")
def command(seed: int | None, **options: Any) -> None:
    """Do the main job end to end on a local cloud, on real files.

    Starts a local cloud, uploads source files of the Python standard library, submits a task for each and some more, and lets the
    controller launch workers, until every task's outcome is proven. The command of --after finds the local cloud, BUCKET_NAME and
    SUBMISSION_IDS in its environment; if it fails, so does the demo.
    """
    import local_cloud.web.service  # noqa: F401 - a library that its services lack is one line here, a traceback in their logs

    choices = Choices(seed=random.SystemRandom().getrandbits(32) if seed is None else seed, **options)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts what runs in the background with it ignored
        signal.signal(number, signal.default_int_handler)
    console = display.console(plain=choices.plain)
    try:
        proven = _demo(choices, console)
    except KeyboardInterrupt:
        click.echo("interrupted: the local cloud and all workers have ended", err=True)
        sys.exit(INTERRUPTED)
    except (FanoutError, ServiceFailed) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(state_folder.unusable(choices.state_dir, error) if error.errno in FOLDER else str(error)) from error
    sys.exit(0 if proven else 1)


def _demo(choices: Choices, console: Console) -> bool:
    """Whether everything was proven."""
    with alone(choices.state_dir):
        replace_folder(choices.state_dir)
        # The gauge of the real Cloud Monitoring is minutes late; a demo is over by then.
        cloud = LocalCloud(choices.state_dir, Options(sample_period_s=0, visibility_lag_s=0), _direct(os.environ))
        console.print(f"starting the local cloud in {cloud.state_dir} (seed {choices.seed}; backlog gauge without its usual lag) ...")
        try:
            with _undisturbed_end(cloud):
                os.environ.update(_direct(cloud.environment))
                record.write(cloud.state_dir, os.getpid(), cloud.addresses, cloud.pids)
                return _done(choices, console, cloud)
        finally:
            record.remove(cloud.state_dir)


def _done(choices: Choices, console: Console, cloud: LocalCloud) -> bool:
    from controller.config import controller_settings
    from controller.wiring import connected
    from fanout.apply import PACKAGED_JOBS_FILE, read_jobs_file
    from fanout.demo.result import problems
    from fanout.demo.run import DemoRun
    from fanout.demo.setup import BUCKET, create, demo_manifests, upload
    from fanout.demo.summary import print_summary
    from fanout.demo.workload import ON_PURPOSE, source_files, workloads

    rng = random.Random(choices.seed)
    files = source_files(choices.file_count, rng)
    loads = workloads(files, unhurried=choices.kill_worker)
    settings = controller_settings({**cloud.environment, "BUCKET_NAME": BUCKET})
    text = read_jobs_file(choices.jobs or PACKAGED_JOBS_FILE)
    manifests = demo_manifests(text, loads, settings.project, kill_worker=choices.kill_worker)
    for line in create(manifests, settings, short_deadline=choices.kill_worker):
        console.print(line)
    with connected(settings) as outside:
        console.print(f"uploading {counted(len(files), 'file')} of the Python standard library ...")
        began_s = outside.clock.monotonic()
        size = upload(outside.store, files)
        console.print(f"uploaded {size / 1e6:.1f} MB in {outside.clock.monotonic() - began_s:.1f} s")
        console.print(f"submitting a task for each, and some more; {ON_PURPOSE}")
        with display.screen(console, plain=choices.plain) as screen:
            run = DemoRun(outside, cloud, screen, rng, kill_worker=choices.kill_worker, limit_s=choices.limit_s)
            run.submit(loads, settings.project)
            result = run.run()
    found = problems(result)
    if choices.after:
        added = {"BUCKET_NAME": BUCKET, "SUBMISSION_IDS": " ".join(run.submission_ids), "STATE_DIR": str(cloud.state_dir)}
        found = run_after(choices.after, {**cloud.environment, **added}) + found
    print_summary(console, result, found, state_dir=cloud.state_dir, results=cloud.state_dir / "storage" / "buckets" / BUCKET)
    return not found


def run_after(command: str, environment: Mapping[str, str]) -> list[str]:
    """Run a shell command; what is wrong if it fails. Its output is the demo's."""
    sys.stdout.flush()
    done = subprocess.run(command, shell=True, env={**os.environ, **environment}, check=False)
    return [f"the command of --after ended with exit code {done.returncode}: {command}"] if done.returncode else []


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Keep other demos out of this folder, from before it is replaced until the end. The lock lies beside the folder, and ends with
    the process. Raises FanoutError when another demo holds it."""
    lock = state_dir.parent / f"{state_dir.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FanoutError(f"another demo is using {state_dir}: wait for its end, or name another --state-dir") from None
        yield


def replace_folder(state_dir: Path) -> None:
    """An empty state folder with our marker. Raises FanoutError rather than delete what no demo has made, or a demo still uses."""
    if state_dir.exists() and any(state_dir.iterdir()):
        if not (state_dir / MARKER).exists():
            raise FanoutError(f"{state_dir} holds something that no demo has put there: name another --state-dir, or empty it yourself")
        try:
            running = record.read(state_dir)
        except ValueError as error:
            raise FanoutError(str(error)) from error
        if running is not None:
            raise FanoutError(f"a local cloud (process {running.pid}) is using {state_dir}: end it, or name another --state-dir")
        shutil.rmtree(state_dir)
    state_dir.mkdir(parents=True, exist_ok=True)
    (state_dir / MARKER).write_text("made by fanout demo, which replaces this folder at each start\n")


@contextmanager
def _undisturbed_end(cloud: LocalCloud) -> Iterator[None]:
    """The local cloud for the duration; a second Ctrl-C does not stop it from ending. Raises ServiceFailed where a dead service is
    behind an error."""
    try:
        cloud.start()
        yield
    except FanoutError:
        # A killed service's connections break a moment before its end can be seen.
        cloud.died.wait(DEATH_SHOWS_S)
        cloud.check()
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        cloud.stop()


def _direct(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with loopback excepted from proxies."""
    return {**environment, **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")}
