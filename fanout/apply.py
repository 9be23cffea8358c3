"""`fanout apply`: bring the deployed jobs to what jobs.yaml says. `fanout render`: print one of its manifests."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from batch.model.errors import SettingsError
from controller.config import RUN_EMULATOR
from controller.lanes.differences import Change, differences
from controller.lanes.manifests import (
    Filling,
    Manifest,
    advice,
    broken_rules,
    checked_manifests,
    completed,
    left_open,
    read_manifests,
    rendered,
)
from controller.lanes.rules import Home
from controller.model.wording import spoken
from controller.observe.deployed import DeployedJobs
from controller.observe.job_documents import Document
from fanout import cloud, output
from fanout.output import counted, explained_errors, show_json

F = TypeVar("F", bound=Callable[..., Any])
Say = Callable[[str], None]

JOBS_FILE = "jobs.yaml"
PACKAGED_JOBS_FILE = Path(__file__).with_name(JOBS_FILE)
"""The one that comes with Fanout: in a wheel a file, in a checkout a link to the one at its top."""
_FILE = click.argument("jobs_file", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=False)


def _manifest_options(function: F) -> F:
    """The options that complete a manifest."""
    for option in (
        click.option("--image", default="", help="The image of the worker's container."),
        click.option("--set-env", "set_env", multiple=True, metavar="NAME=VALUE", help="A setting of the worker; may be repeated."),
        click.option("--bucket", envvar="BUCKET_NAME", default="", show_envvar=True, help="Fills BUCKET_NAME where the file has none."),
        click.option(
            "--service-account",
            "accounts",
            multiple=True,
            metavar="[JOB=]EMAIL",
            help="Whom a job runs as, where the file does not say; without JOB, every job. May be repeated.",
        ),
    ):
        function = option(function)
    return function


@click.command("apply")
@_FILE
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="The project of the jobs.")
@click.option("--region", envvar="REGION", default="us-central1", show_default=True, show_envvar=True, help="The region of the jobs.")
@_manifest_options
@click.option("--create-missing", is_flag=True, help="Also create topics, subscriptions and the bucket that lanes need.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cloud.as_json_option
def apply(
    jobs_file: Path | None,
    project: str,
    region: str,
    set_env: tuple[str, ...],
    image: str,
    bucket: str,
    accounts: tuple[str, ...],
    create_missing: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Apply every job of JOBS_FILE, after showing what would change.

    JOBS_FILE is jobs.yaml of this folder by default; without one, the jobs.yaml that comes with Fanout.

    \b
    fanout apply --dry-run        # what would change
    fanout apply --yes --create-missing --image IMAGE

    JSON: jobs (job, lane, exists, changes, advice, applied) and created. The rest goes to standard error.
    """
    emulator = os.environ.get(RUN_EMULATOR, "")

    def say(line: str) -> None:
        output.say(line, err=as_json)

    with explained_errors():
        filling = _filling(project, bucket, set_env, image, accounts)
        manifests = checked_manifests(_text(jobs_file), filling, Home(project, bucket), image_matters=not emulator)
        with cloud.logged_in():
            client = DeployedJobs(project, region, emulator_url=emulator)
        created: list[str] = []
        with closing(client) as deployed:
            shown = [_shown(manifest, deployed, say) for manifest in manifests]
            if not dry_run and (create_missing or any(one.changes for one in shown)):
                if not yes:
                    click.confirm(f"apply this to project {project}, region {region}?", abort=True, err=as_json)
                if create_missing:
                    created = _create_missing(manifests, project, region, say)
                for one in shown:
                    if one.changes:
                        deployed.apply(one.manifest.name, one.document, exists=one.exists)
                        one.applied = True
                        say(f"{'replaced' if one.exists else 'created'} job {one.manifest.name}")
        if as_json:
            show_json({"jobs": [one.json() for one in shown], "created": created})


@click.command("render")
@click.argument("lane", required=False)
@_FILE
@click.option("--lanes", "as_lanes", is_flag=True, help="Print job, lane, topic and subscription of each lane instead, a line each.")
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", default="", show_envvar=True, help="Fills GOOGLE_CLOUD_PROJECT.")
@_manifest_options
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def render(
    lane: str | None,
    jobs_file: Path | None,
    as_lanes: bool,
    project: str,
    set_env: tuple[str, ...],
    image: str,
    bucket: str,
    accounts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the manifest of LANE (or of the job of that name), since `gcloud run jobs replace` takes one at a time.

    JOBS_FILE is as for `fanout apply`.

    \b
    fanout render default | gcloud run jobs replace -
    fanout render --lanes jobs.yaml
    """
    if as_lanes:
        # The only argument is the file then.
        _print_lanes(jobs_file or (Path(lane) if lane else None))
        return
    if lane is None:
        raise click.UsageError("Missing argument 'LANE'; --lanes lists them.")
    with explained_errors():
        filling = _filling(project, bucket, set_env, image, accounts)
        manifests = read_manifests(_text(jobs_file))
        found = [one for one in manifests if lane in (one.lane, one.name)]
        if not found:
            known = ", ".join(one.lane or one.name for one in manifests)
            raise SettingsError([f"{jobs_file or JOBS_FILE} has no lane {lane!r}; it has {known}"])
        manifest = completed(found[0], filling)
        for problem in left_open(manifest):
            output.say(f"left open: {problem}", err=True)
        for problem in broken_rules(manifest, Home(project, bucket)):
            output.say(f"wrong: {problem}", err=True)
        if as_json:
            show_json(manifest.document)
        else:
            click.echo(rendered(manifest), nl=False)


def _print_lanes(jobs_file: Path | None) -> None:
    """For scripts: columns with a space between."""
    with explained_errors():
        for one in read_manifests(_text(jobs_file)):
            if one.lane:
                click.echo(" ".join((one.name, one.lane, one.topic, one.subscription)))


def read_jobs_file(jobs_file: Path) -> str:
    """Raises SettingsError."""
    try:
        return jobs_file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError([f"{jobs_file}: there is no such file"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError([f"{jobs_file}: not UTF-8 at byte {error.start}: save it as UTF-8"]) from error


def _text(jobs_file: Path | None) -> str:
    """Of this file, or of the default. Raises SettingsError."""
    if jobs_file is None:
        jobs_file = Path(JOBS_FILE)
        if not jobs_file.exists():
            jobs_file = PACKAGED_JOBS_FILE
            click.echo(f"this folder has no {JOBS_FILE}: taken is the one that comes with Fanout; to edit it: cp {jobs_file} .", err=True)
    return read_jobs_file(jobs_file)


def _filling(project: str, bucket: str, set_env: Sequence[str], image: str, accounts: Sequence[str]) -> Filling:
    """What the options say. Raises SettingsError with every --set-env that is not NAME=VALUE."""
    problems = [f"--set-env {one!r}: must be NAME=VALUE" for one in set_env if not one.partition("=")[0].strip() or "=" not in one]
    if problems:
        raise SettingsError(problems)
    by_job = {one.rpartition("=")[0]: one.rpartition("=")[2] for one in accounts}
    return Filling(project, bucket, dict(one.split("=", 1) for one in set_env), image, by_job)


@dataclass(slots=True)
class _Shown:
    """One job, as the file says it against what is deployed."""

    manifest: Manifest
    found: Document | None
    changes: list[Change]
    applied: bool = False

    @property
    def exists(self) -> bool:
        return self.found is not None

    @property
    def document(self) -> Document:
        """What replaces the job that was read, and no other: a person has agreed to the changes of that one."""
        version = (self.found or {}).get("metadata", {}).get("resourceVersion")
        metadata = self.manifest.document["metadata"]
        return {**self.manifest.document, "metadata": {**metadata, "resourceVersion": version} if version else metadata}

    def json(self) -> dict[str, object]:
        return {
            "job": self.manifest.name,
            "lane": self.manifest.lane or None,
            "exists": self.exists,
            "changes": [str(change) for change in self.changes],
            "advice": list(advice(self.manifest)),
            "applied": self.applied,
        }


def _shown(manifest: Manifest, deployed: DeployedJobs, say: Say) -> _Shown:
    """Print the difference between a manifest and what is deployed."""
    for line in advice(manifest):
        say(f"advice: {line}")
    found = deployed.read(manifest.name)
    changes = list(differences(found, manifest.document))
    what = f"job {manifest.name}" + (f" (lane {manifest.lane})" if manifest.lane else "")
    if found is None:
        say(f"{what}: new; {_summed_up(manifest)}")
    else:
        say(f"{what}: {counted(len(changes), 'change')}" if changes else f"{what}: as the file says")
        for change in changes:
            say(f"  {change.short}")
    return _Shown(manifest, found, changes)


def _summed_up(manifest: Manifest) -> str:
    """A new job in a few words, the longest last."""
    job = manifest.job
    workers = f"up to {manifest.policy.max_workers} workers of " if manifest.lane else ""
    size = f"{job.vcpu:g} CPU, {job.memory_gib:g} GiB"
    return f"{workers}{size}, {spoken(job.task_timeout_s)}, image {job.worker.image}"


def _create_missing(manifests: Sequence[Manifest], project: str, region: str, say: Say) -> list[str]:
    """What was created; also told where the rest could not be."""
    from controller.lanes.resources import Creator, needed, permission_hint

    created: list[str] = []
    wanted = [needed(one) for one in manifests if one.lane]
    try:
        with closing(Creator(project, region)) as creator:
            for one in wanted:
                created += (line.removeprefix("created ") for line in creator.create_missing(one))
    finally:
        _say_created(created, say)
    if any("subscription" in line for line in created) and not os.environ.get("PUBSUB_EMULATOR_HOST"):
        say("dead-lettering needs these rights of Pub/Sub's own account, which only you can grant:")
        for line in permission_hint(project, [one.subscription for one in wanted], wanted[0].dead_letter_topic):
            say(f"  {line}")
    return created


def _say_created(created: Sequence[str], say: Say) -> None:
    """One line for each kind of thing. A subscription is named with its topic where that has another name."""
    kinds: dict[str, list[str]] = {}
    for line in created:
        kind, name, *rest = line.split()
        kinds.setdefault(kind, []).append(" ".join((name, *rest)) if rest and rest != ["of", "topic", name] else name)
    for kind, names in kinds.items():
        say(f"created {kind}{'' if len(names) == 1 else 's'} {', '.join(names)}")
