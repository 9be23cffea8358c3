"""`fanout apply`: bring the deployed jobs to what jobs.yaml says, after showing the difference."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from batch.model.errors import SettingsError
from controller.config import RUN_EMULATOR
from controller.lanes.deployed import DeployedJobs
from controller.lanes.differences import Change, differences
from controller.lanes.manifests import Manifest, advice, completed, known_settings, left_open, read_manifests
from controller.model.wording import counted
from fanout import cloud
from fanout.ends import explained_errors
from fanout.listing import show_json

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
@cloud.as_json_option
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
    as_json: bool,
) -> None:
    """Apply every job of JOBS_FILE (jobs.yaml), after showing what would change.

    \b
    fanout apply --dry-run        # what would change
    fanout apply --yes --create-missing --image IMAGE

    JSON: jobs (job, lane, exists, changes, advice, applied) and created. The rest is then told on standard error.
    """
    emulator = os.environ.get(RUN_EMULATOR, "")
    with explained_errors():
        manifests = [_filled(one, project, bucket, set_env, image) for one in manifests_of(jobs_file)]
        problems = [problem for one in manifests for problem in left_open(one, image_matters=not emulator)]
        if problems:
            raise SettingsError(problems)
        told = _Told(as_json)
        with cloud.logged_in():
            client = DeployedJobs(project, region, emulator_url=emulator)
        with closing(client) as deployed:
            shown = [_shown(manifest, deployed, told) for manifest in manifests]
            if not dry_run and (create_missing or any(one.changes for one in shown)):
                if not yes:
                    click.confirm(f"apply this to project {project}, region {region}?", abort=True, err=as_json)
                if create_missing:
                    _create_missing(manifests, project, region, told)
                for one in shown:
                    if one.changes:
                        deployed.apply(one.manifest, exists=one.exists)
                        one.applied = True
                        told.line(f"{'replaced' if one.exists else 'created'} job {one.manifest.name}")
        if as_json:
            show_json({"jobs": [one.json() for one in shown], "created": told.created})


@dataclass(slots=True)
class _Told:
    """What is said on the way; beside JSON it goes to standard error."""

    beside_json: bool
    created: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        click.echo(text, err=self.beside_json)


@dataclass(slots=True)
class _Shown:
    """One job, as the file says it against what is deployed."""

    manifest: Manifest
    exists: bool
    changes: list[Change]
    applied: bool = False

    def json(self) -> dict[str, object]:
        return {
            "job": self.manifest.name,
            "lane": self.manifest.lane or None,
            "exists": self.exists,
            "changes": [str(change) for change in self.changes],
            "advice": list(advice(self.manifest)),
            "applied": self.applied,
        }


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


def _shown(manifest: Manifest, deployed: DeployedJobs, told: _Told) -> _Shown:
    """Tell the difference between a manifest and what is deployed."""
    for line in advice(manifest):
        told.line(f"advice: {line}")
    found = deployed.read(manifest.name)
    changes = differences(found, manifest.document)
    told.line(_title(manifest, found is not None, changes))
    for change in changes:
        told.line(f"  {change}")
    return _Shown(manifest, found is not None, list(changes))


def _title(manifest: Manifest, exists: bool, changes: Sequence[Change]) -> str:
    what = f"job {manifest.name}" + (f" (lane {manifest.lane})" if manifest.lane else "")
    if not exists:
        return f"{what}: new"
    return f"{what}: {counted(len(changes), 'change')}" if changes else f"{what}: as the file says"


def _create_missing(manifests: Sequence[Manifest], project: str, region: str, told: _Told) -> None:
    from controller.lanes.resources import Creator, needed, permission_hint

    wanted = [needed(one) for one in manifests if one.lane]
    with closing(Creator(project, region)) as creator:
        for one in wanted:
            for line in creator.create_missing(one):
                told.created.append(line.removeprefix("created "))
                told.line(line)
    if any("subscription" in line for line in told.created) and not os.environ.get("PUBSUB_EMULATOR_HOST"):
        told.line("dead-lettering needs these rights of Pub/Sub's own account, which only you can grant:")
        for line in permission_hint(project, [one.subscription for one in wanted], wanted[0].dead_letter_topic):
            told.line(f"  {line}")
