"""`fanout render`: one manifest of jobs.yaml as YAML, since `gcloud run jobs replace` takes one document at a time."""

from __future__ import annotations

from pathlib import Path

import click

from batch.model.errors import SettingsError
from controller.lanes.manifests import completed, known_settings, left_open, rendered
from fanout.apply import JOBS_FILE, manifest_options, manifests_of, pairs
from fanout.ends import explained_errors
from fanout.listing import show_json


@click.command()
@click.argument("lane")
@click.argument("jobs_file", type=click.Path(path_type=Path, dir_okay=False, exists=True), default=JOBS_FILE)
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", default="", show_envvar=True, help="Fills GOOGLE_CLOUD_PROJECT.")
@manifest_options
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(lane: str, jobs_file: Path, project: str, set_env: tuple[str, ...], image: str, bucket: str, as_json: bool) -> None:
    """Print the manifest of LANE (or of the job of that name).

    \b
    fanout render default | gcloud run jobs replace -
    """
    with explained_errors():
        manifests = manifests_of(jobs_file)
        found = [one for one in manifests if lane in (one.lane, one.name)]
        if not found:
            known = ", ".join(one.lane or one.name for one in manifests)
            raise SettingsError([f"{jobs_file} has no lane {lane!r}; it has {known}"])
        manifest = completed(found[0], {**known_settings(found[0], project, bucket), **pairs(set_env)}, image)
        for problem in left_open(manifest):
            click.echo(f"left open: {problem}", err=True)
        if as_json:
            show_json(manifest.document)
        else:
            click.echo(rendered(manifest), nl=False)
