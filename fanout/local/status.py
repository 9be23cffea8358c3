"""`fanout local status` and `env`: what runs where, how much waits, and the environment for clients. They only read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from batch.model.texts import printable
from fanout.local.running import format_option, formatted, running, state_dir_option
from local_cloud.supervisor.child import ServiceFailed
from local_cloud.supervisor.control import remote
from local_cloud.supervisor.http_call import call
from local_cloud.supervisor.record import Record
from local_cloud.supervisor.workers import running_workers


@click.command()
@state_dir_option
@format_option
def env(state_dir: Path, style: str) -> None:
    """Print the environment that sends clients to it.

    In a shell: eval "$(fanout local env)".
    """
    click.echo(formatted(running(state_dir).addresses.environment, style))


@click.command()
@state_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(state_dir: Path, as_json: bool) -> None:
    """Show what runs, and what waits.

    Services with their processes and addresses, the backlog of each subscription, and the running workers.

    Ends with 1 when a service that should answer does not.
    """
    there = running(state_dir)
    facts = _facts(state_dir, there)
    click.echo(json.dumps(facts, indent=1) if as_json else _text(facts))
    silent = [str(service["problem"]) for service in facts["services"] if service.get("problem")]
    if silent:
        raise click.ClickException("\n".join(silent))


def _facts(state_dir: Path, there: Record) -> dict[str, Any]:
    try:
        states = remote(state_dir).states()
    except ServiceFailed:  # the demo's takes no requests: then nothing was frozen or killed on purpose
        states = dict.fromkeys(there.services, "runs")
    services: list[dict[str, Any]] = []
    subscriptions: Any = []
    for name, url in there.addresses.http.items():
        service = {"service": name, "state": states.get(name, "died"), "process": there.services.get(name), "url": url}
        if name == "pubsub":
            service["grpc"] = there.addresses.pubsub
        if service["state"] == "runs":
            try:
                answer = call(name, url)
                subscriptions = answer.get("subscriptions", subscriptions)
            except ServiceFailed as error:
                service |= {"state": "silent", "problem": str(error)}
        services.append(service)
    workers = [
        {"process": one.pid, "job": one.job, "execution": one.execution, "index": one.index, "retry": one.retry}
        for one in running_workers(state_dir)
    ]
    return {"process": there.pid, "services": services, "subscriptions": subscriptions, "workers": workers}


def _text(facts: dict[str, Any]) -> str:
    lines = []
    for one in facts["services"]:
        process = f"process {one['process']}" if one["process"] else "no process"
        lines.append(f"{one['service']:8} {one['state']:7} {process:16} {one['url']}" + (f"  gRPC {one['grpc']}" if "grpc" in one else ""))
    for one in facts["subscriptions"]:
        counts = f"backlog {one['backlog']}, leased {one['outstanding']}, oldest {one['oldest_age_s']:.0f} s"
        lines.append(f"subscription {one['project']}/{one['subscription']}: {counts}")
    lines.extend(
        f"worker {one['execution']} index {one['index']} retry {one['retry']}: process {one['process']}" for one in facts["workers"]
    )
    return "\n".join(map(printable, lines))
