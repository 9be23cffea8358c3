"""`fanout local gcloud`: the real gcloud, sent to the local cloud. Nothing of it can reach a real project."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from fanout.local.running import running, state_dir_option
from local_cloud.gcloud import gcloud_environment

FOLDER = "gcloud"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@state_dir_option
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def gcloud(state_dir: Path, arguments: tuple[str, ...]) -> None:
    """Run the real gcloud on it.

    As in `fanout local gcloud -- run jobs list`. It must be installed.

    Its configuration is a private one in the state folder, without credentials; yours is not touched. The exit code is gcloud's.
    """
    there = running(state_dir)
    program = shutil.which("gcloud")
    if program is None:
        raise click.ClickException("gcloud is not installed: https://cloud.google.com/sdk/docs/install; all else works without it")
    # What of the user's own settings names a project, an account or an endpoint must not get through.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSDK_")}
    try:
        environment = gcloud_environment(there.addresses, state_dir.resolve() / FOLDER, arguments)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    os.execve(program, [program, *arguments], {**clean, **environment})
