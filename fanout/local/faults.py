"""`fanout local faults`: ask for failures of single calls, see which were met, and forget them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fanout.local.running import running, state_dir_option, told
from local_cloud.addresses import PROJECT
from local_cloud.faults.kinds import KINDS
from local_cloud.supervisor.fault_requests import Fault, FaultRequests
from local_cloud.supervisor.supervisor import SERVICES

project_option = click.option("--project", default=PROJECT, show_default=True, help="The project whose calls meet the faults.")


@click.group()
def faults() -> None:
    """Let calls fail on request.

    `kinds` lists the faults, `add` asks for one, `list` shows which were met and which were not.
    """


@faults.command()
@click.argument("service", type=click.Choice(SERVICES))
@click.argument("method")
@click.argument("wanted", nargs=-1, required=True, metavar="FAULT...")
@click.option("--rate", type=click.FloatRange(0, 1), default=None, help="Each call meets FAULT with this probability.")
@click.option("--seed", type=int, default=0, show_default=True, help="For --rate: the same seed chooses the same calls.")
@project_option
@state_dir_option
def add(service: str, method: str, wanted: tuple[str, ...], rate: float | None, seed: int, project: str, state_dir: Path) -> None:
    """The next calls of METHOD meet FAULT..., one each, in this order.

    METHOD has its real name: Pull, Acknowledge, Publish, ListTimeSeries (of pubsub), objects.insert (storage), jobs.run (run).
    FAULT is a kind, with what it takes after a colon: unavailable, slow:seconds=2, cannot_start:reason=quota.
    """
    read = [_fault(text) for text in wanted]
    if rate is not None and len(read) != 1:
        raise click.UsageError(f"with --rate there is exactly one FAULT, got {len(read)}")
    requests = FaultRequests(running(state_dir).addresses)
    with told():
        if rate is None:
            found = requests.add(service, project, method, *read)
        else:
            found = requests.add_rate(service, project, method, read[0], rate=rate, seed=seed)
    click.echo(found)


@faults.command("list")
@click.option("--project", default=None, help="Only the faults of this project; by default those of all.")
@state_dir_option
def list_(project: str | None, state_dir: Path) -> None:
    """Print the faults that were asked for, met and not met, as JSON by service."""
    with told():
        click.echo(json.dumps(FaultRequests(running(state_dir).addresses).report(project), indent=1))


@faults.command()
@project_option
@state_dir_option
def clear(project: str, state_dir: Path) -> None:
    """Forget the faults of a project on all services; prints their last report."""
    with told():
        click.echo(json.dumps(FaultRequests(running(state_dir).addresses).clear(project), indent=1))


@faults.command()
def kinds() -> None:
    """Print the kinds of faults, what each takes, and what it means."""
    for kind in KINDS.values():
        takes = f" ({', '.join(kind.takes)})" if kind.takes else ""
        click.echo(f"{kind.name}{takes}: {kind.meaning}")


def _fault(text: str) -> Fault:
    """Of `kind` or `kind:name=number,name=number`."""
    kind, _, rest = text.partition(":")
    fault: dict[str, object] = {"kind": kind}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        try:
            fault[name] = value if name == "reason" else float(value) if name == "seconds" else int(value)
        except ValueError:
            wanted = "a number of seconds" if name == "seconds" else "a whole number"
            raise click.UsageError(f"{text}: {name} needs {wanted}" + ("" if equals else f", as in {name}=2")) from None
    return fault
