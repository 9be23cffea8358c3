"""All commands of `fanout`. Each lives in a module that is imported only when it is used, so `fanout --help` is quick."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import click

from batch.model.texts import printable

# Where the command is, and what it does in one line.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("fanout.demo.program:command", "Do the main job end to end on a local cloud, on real files."),
    "local": ("fanout.local:command", "Start and use the local cloud."),
    "submit": ("fanout.submission.submit:command", "Submit tasks."),
    "proof": ("fanout.submission.proof:command", "Prove what became of a submission's tasks, or count a lane's."),
    "status": ("fanout.submission.following:status", "Show how far a submission is."),
    "wait": ("fanout.submission.following:wait", "Wait until a submission has ended."),
    "outcomes": ("fanout.submission.outcomes:command", "Print the outcomes of a submission's tasks, line by line."),
    "task": ("fanout.task:command", "Show what became of one task, or what it waits for."),
    "dead": ("fanout.dead:command", "See, mend and replay tasks that died."),
    "retry": ("fanout.dead.retry:command", "Replay the dead tasks of a submission."),
    "cancel": ("fanout.cancel:command", "Cancel tasks that have not started, or all of a submission."),
    "apply": ("fanout.apply:apply", "Apply jobs.yaml, after showing what would change."),
    "render": ("fanout.apply:render", "Print one manifest of jobs.yaml, for `gcloud run jobs replace -`."),
    "tick": ("fanout.tick:tick", "Read the backlog, decide, launch: once, for one lane or all."),
    "plan": ("fanout.tick:plan", "Decide and explain, and launch nothing."),
    "explain": ("fanout.explain:command", "Why the controller did what it did, now or at a time."),
    "lanes": ("fanout.lanes:command", "Show the lanes: backlog, ledger, workers, what is in the way."),
    "executions": ("fanout.executions:command", "Show executions and the progress of their workers."),
    "execution": ("fanout.execution:command", "Show the workers of one execution, try by try."),
    "simulate": ("fanout.simulation.simulate:command", "Simulate what lanes cost, beside others' rules, and try settings."),
    "tune": ("fanout.simulation.tune:command", "Find the cheapest settings that meet a target."),
    "pause": ("fanout.pause:pause", "Launch nothing more for a lane; what runs goes on."),
    "resume": ("fanout.pause:resume", "Launch for a paused lane again."),
    "launch": ("fanout.launch:command", "Start an execution of a lane's job by hand."),
    "doctor": ("fanout.doctor:command", "Check what lanes need, and fix what is safe to fix."),
}


class LazyGroup(click.Group):
    """Knows its commands' names and one-line helps without importing them."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if not near or "Did you mean" in error.format_message():
                raise
            raise click.UsageError(f"{error.format_message()} Did you mean {near[0]!r}?", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """What a command raises for a person to read names things of the network: each of its lines is made printable."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = "\n".join(map(printable, error.message.split("\n")))  # type: ignore[misc]  # click shows what stands there
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fanout-batch", prog_name="fanout")
def main() -> None:
    """Drain a Pub/Sub backlog with Cloud Run Jobs."""
