"""`fanout apply`: bring the deployed jobs to what jobs.yaml says, after showing the difference."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from batch.ends import EXIT_BROKEN as EXIT_DEPENDENCY
from batch.ends import EXIT_SETTINGS
from batch.errors import DependencyError, FanoutError, SettingsError
from controller.config import RUN_EMULATOR
from controller.deployed import DeployedJobs
from controller.differences import Change, differences
from controller.manifests import Manifest, advice, completed, known_settings, left_open, read_manifests
from controller.wording import counted

F = TypeVar("F", bound=Callable[..., Any])

JOBS_FILE = Path("jobs.yaml")


def manifest_options(function: F) -> F:
    """The options that complete a manifest; `render` takes the same."""
    for option in (
        click.option("--image", default="", help="The image of every container."),
        click.option("--set-env", "set_env", multiple=True, metavar="NAME=VALUE", help="A setting of every container; may be repeated."),
        click.option("--bucket", envvar="BUCKET_NAME", default="", show_envvar=True, help="Fills BUCKET_NAME where the file has none."),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("jobs_file", type=click.Path(path_type=Path, dir_okay=False, exists=True), default=JOBS_FILE)
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="The project of the jobs.")
@click.option("--region", envvar="REGION", default="us-central1", show_default=True, show_envvar=True, help="The region of the jobs.")
@manifest_options
@click.option("--create-missing", is_flag=True, help="Also create topics, subscriptions and the bucket that lanes need.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    jobs_file: Path,
    project: str,
    region: str,
    set_env: tuple[str, ...],
    image: str,
    bucket: str,
    create_missing: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Apply every job of JOBS_FILE (jobs.yaml), after showing what would change."""
    emulator = os.environ.get(RUN_EMULATOR, "")
    with explained_errors():
        manifests = [_filled(one, project, bucket, set_env, image) for one in manifests_of(jobs_file)]
        problems = [problem for one in manifests for problem in left_open(one, image_matters=not emulator)]
        if problems:
            raise SettingsError(problems)
        with closing(DeployedJobs(project, region, emulator_url=emulator)) as deployed:
            changes = _shown(manifests, deployed)
            if dry_run or not (changes or create_missing):
                return
            if not yes:
                click.confirm(f"apply this to project {project}, region {region}?", abort=True)
            if create_missing:
                _create_missing(manifests, project, region)
            for manifest, exists in changes:
                deployed.apply(manifest, exists=exists)
                click.echo(f"{'replaced' if exists else 'created'} job {manifest.name}")


@contextmanager
def explained_errors() -> Iterator[None]:
    """What Fanout can explain ends the command with its own text, one problem a line: with 2 for wrong settings, with 3 when a
    service could not be reached, with 1 otherwise."""
    try:
        yield
    except SettingsError as error:
        raise Ended(EXIT_SETTINGS, "\n".join(error.problems)) from error
    except DependencyError as error:
        raise Ended(EXIT_DEPENDENCY, str(error)) from error
    except FanoutError as error:
        raise click.ClickException(str(error)) from error


class Ended(click.ClickException):
    """An error with an exit code of its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = code  # type: ignore[misc]  # click declares it on the class and reads it from the instance


def pairs(given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping. Raises SettingsError with every text that is none."""
    problems = [f"--set-env {one!r}: must be NAME=VALUE" for one in given if not one.partition("=")[0].strip() or "=" not in one]
    if problems:
        raise SettingsError(problems)
    return dict(one.split("=", 1) for one in given)


def manifests_of(jobs_file: Path) -> tuple[Manifest, ...]:
    """The manifests of a file. Raises SettingsError."""
    try:
        text = jobs_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError([f"{jobs_file}: not UTF-8 at byte {error.start}: save it as UTF-8"]) from error
    return read_manifests(text)


def _filled(manifest: Manifest, project: str, bucket: str, set_env: Sequence[str], image: str) -> Manifest:
    return completed(manifest, {**known_settings(manifest, project, bucket), **pairs(set_env)}, image)


def _shown(manifests: Sequence[Manifest], deployed: DeployedJobs) -> list[tuple[Manifest, bool]]:
    """Print the differences; returns the jobs that differ, and whether each exists."""
    changed = []
    for manifest in manifests:
        for line in advice(manifest):
            click.echo(f"advice: {line}")
        found = deployed.read(manifest.name)
        changes = differences(found, manifest.document)
        click.echo(_title(manifest, found is not None, changes))
        for change in changes:
            click.echo(f"  {change}")
        if changes:
            changed.append((manifest, found is not None))
    return changed


def _title(manifest: Manifest, exists: bool, changes: Sequence[Change]) -> str:
    what = f"job {manifest.name}" + (f" (lane {manifest.lane})" if manifest.lane else "")
    if not exists:
        return f"{what}: new"
    return f"{what}: {counted(len(changes), 'change')}" if changes else f"{what}: as the file says"


def _create_missing(manifests: Sequence[Manifest], project: str, region: str) -> None:
    from controller.resources import Creator, needed, permission_hint

    wanted = [needed(one) for one in manifests if one.lane]
    with closing(Creator(project, region)) as creator:
        made = [line for one in wanted for line in _echoed(creator.create_missing(one))]
    if any("subscription" in line for line in made) and not os.environ.get("PUBSUB_EMULATOR_HOST"):
        click.echo("dead-lettering needs these rights of Pub/Sub's own account, which only you can grant:")
        for line in permission_hint(project, [one.subscription for one in wanted], wanted[0].dead_letter_topic):
            click.echo(f"  {line}")


def _echoed(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        click.echo(line)
        yield line
