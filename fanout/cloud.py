"""Where a command works: the options that name project, region and bucket, and the clients that are made from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from batch.model.errors import DependencyForbidden
from batch.services.ports import ObjectStore, Topic
from controller.config import RUN_EMULATOR, ControllerSettings, controller_settings
from controller.observe.jobs import LANE_LABEL, JobRunner
from controller.tick.outside import Outside
from fanout.output import explained_errors

if TYPE_CHECKING:
    from controller.observe.arrivals import GoogleArrivalsReader

_PROJECT = click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", show_envvar=True, help="The project.")
_REGION = click.option(
    "--region", envvar="REGION", default="us-central1", show_default=True, show_envvar=True, help="The region of the jobs."
)
_BUCKET = click.option("--bucket", envvar="BUCKET_NAME", show_envvar=True, help="The bucket with progress and decisions.")
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with the keys that are named above.")


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options for project, region and bucket; the command gets them as `settings`, with the rest of its settings from the environment.
    Errors that Fanout can explain end the command."""

    @wraps(function)
    def command(*, settings: Callable[[], ControllerSettings], **arguments: Any) -> Any:
        return function(settings=settings(), **arguments)

    return with_settings_if_needed(command)


def with_settings_if_needed(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `with_settings`, for a command that may do without: its `settings` is a function that makes them, and raises SettingsError."""

    @wraps(function)
    def command(*, project: str | None, region: str, bucket: str | None, **arguments: Any) -> Any:
        named = {"GOOGLE_CLOUD_PROJECT": project, "REGION": region, "BUCKET_NAME": bucket}
        given = {name: value for name, value in named.items() if value is not None}
        with explained_errors():
            return function(settings=lambda: controller_settings({**os.environ, **given}), **arguments)

    return _PROJECT(_REGION(_BUCKET(command)))


def with_jobs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options for project and region, for a command that needs no more than the jobs; it gets them as `runner`."""

    @wraps(function)
    def command(*, project: str, region: str, **arguments: Any) -> Any:
        with explained_errors(), open_runner(project, region) as runner:
            return function(runner=runner, **arguments)

    required = click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="The project of the jobs.")
    return required(_REGION(command))


def with_store(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options for project and bucket, for a command that needs no more than the bucket; it gets it as `store`."""

    @wraps(function)
    def command(*, project: str, bucket: str, **arguments: Any) -> Any:
        with explained_errors(), open_store(project, bucket) as store:
            return function(store=store, **arguments)

    bucket = click.option("--bucket", envvar="BUCKET_NAME", required=True, show_envvar=True, help="The bucket with manifests and outcomes.")
    required = click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="The project of the bucket.")
    return required(bucket(command))


def connected(settings: ControllerSettings) -> AbstractContextManager[Outside]:
    """Everything that a tick touches, through Google's clients."""
    from controller import wiring

    return wiring.connected(settings)


def open_arrivals(settings: ControllerSettings) -> AbstractContextManager[GoogleArrivalsReader]:
    """What came to subscriptions, through Google's client. Raises DependencyForbidden."""
    from controller.observe.arrivals import GoogleArrivalsReader

    with logged_in():
        return closing(GoogleArrivalsReader(settings.project, emulator_host=settings.monitoring_emulator))


def open_runner(project: str, region: str) -> AbstractContextManager[JobRunner]:
    """The jobs, through Google's client. Raises DependencyForbidden."""
    from controller.observe.google_jobs import GoogleJobRunner

    with logged_in():
        return closing(GoogleJobRunner(project, region, emulator_url=os.environ.get(RUN_EMULATOR, "")))


def open_store(project: str, bucket: str) -> AbstractContextManager[ObjectStore]:
    """The bucket, through Google's client."""
    from batch.services.objects import GoogleObjectStore

    return closing(GoogleObjectStore(bucket, project=project, billing_project=os.environ.get("BILLING_PROJECT", "")))


def open_topic(project: str, name: str) -> AbstractContextManager[Topic]:
    """The topic, through Google's client."""
    from batch.services.topic import GoogleTopic

    return closing(GoogleTopic(project, name))


@contextmanager
def logged_in() -> Iterator[None]:
    """Around what makes a client. Raises DependencyForbidden where there are no credentials."""
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAuthError as error:
        told = " ".join(str(error).split())[:300]
        raise DependencyForbidden(f"there are no credentials: run `gcloud auth application-default login`; {told}") from error


def no_lane(settings: ControllerSettings) -> str:
    """What to say where there is no lane at all."""
    return f"{settings.where} has no job labelled {LANE_LABEL}: run `fanout apply`, or fix GOOGLE_CLOUD_PROJECT or REGION"
