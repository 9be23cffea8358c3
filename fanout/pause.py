"""`fanout pause` and `fanout resume`: the controller launches nothing for a paused lane. Executions that run go on."""

from __future__ import annotations

import click

from controller.lanes.lanes import lanes_named
from controller.observe.jobs import JobRunner
from fanout import cloud
from fanout.output import say, show_json

PAUSED = "fanout/paused"


@click.command("pause")
@click.argument("lanes", nargs=-1, required=True)
@cloud.as_json_option
@cloud.with_jobs
def pause(lanes: tuple[str, ...], as_json: bool, runner: JobRunner) -> None:
    """Launch nothing more for LANES. Executions that run go on, and tasks may still be submitted.

    It sets the annotation `fanout/paused` of the deployed job, so that it holds from the next tick until `fanout resume`, or until
    `fanout apply` sets what jobs.yaml says. A lane that is paused already stays so.

    \b
    fanout pause default
    fanout pause default bulk

    JSON: lanes (lane, job, paused, changed).
    """
    _set_paused(runner, lanes, paused=True, as_json=as_json)


@click.command("resume")
@click.argument("lanes", nargs=-1, required=True)
@cloud.as_json_option
@cloud.with_jobs
def resume(lanes: tuple[str, ...], as_json: bool, runner: JobRunner) -> None:
    """Launch for LANES again, from the next tick on.

    Where jobs.yaml says `fanout/paused: "true"` change that too, or the next `fanout apply` pauses the lane again.

    \b
    fanout resume default && fanout tick default

    JSON: lanes (lane, job, paused, changed).
    """
    _set_paused(runner, lanes, paused=False, as_json=as_json)


def _set_paused(runner: JobRunner, names: tuple[str, ...], *, paused: bool, as_json: bool) -> None:
    """Set or clear the annotation of these lanes, and say so. All names are checked first. Raises SettingsError, DependencyError."""
    done: list[dict[str, object]] = []
    for lane in lanes_named(runner.jobs(), names):
        changed = lane.policy.paused is not paused
        if changed:
            runner.set_annotation(lane.job, PAUSED, "true" if paused else "false")
        done.append({"lane": lane.name, "job": lane.job, "paused": paused, "changed": changed})
        if not as_json:
            say(_told(lane.name, paused=paused, changed=changed))
    if as_json:
        show_json({"lanes": done})


def _told(lane: str, *, paused: bool, changed: bool) -> str:
    if not changed:
        return f"lane {lane} was paused already" if paused else f"lane {lane} was not paused"
    if paused:
        return f"lane {lane} is paused: nothing is launched for it, what runs goes on; `fanout resume {lane}` ends it"
    return f"lane {lane} is resumed: the next tick decides for it, `fanout tick {lane}` does it now"
