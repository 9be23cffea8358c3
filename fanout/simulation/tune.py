"""`fanout tune`: the cheapest settings that meet a target, found in simulated runs, as annotations to write down."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from batch.model.clock import SystemClock
from controller.model.wording import duration, spoken
from controller.simulation.running import lanes_of
from fanout import cloud
from fanout.output import EXIT_FINE, EXIT_TROUBLE, say, show_json, tell
from fanout.simulation.case import Case, case_options
from fanout.simulation.comparing import Outcome, check, fanout_outcome
from fanout.simulation.options import given, percent_of
from fanout.simulation.tuning import Target, Tried, Tuning, tuned

SEEDS = 3


@click.command("tune")
@case_options(lane_argument=True)
@click.option("--in-time", "percent_text", default="99", show_default=True, help="Percent of the messages.")
@click.option("--within", required=True, help="How soon they are to be done, such as 10m: what drain-within is set to.")
@click.option("--for", "limit", default="2m", show_default=True, help="No new run is begun after that.")
@cloud.as_json_option
def command(case: Case, percent_text: str, within: str, limit: str, as_json: bool) -> None:
    """Find the cheapest settings that meet a target, for what came to LANE, or for a pattern or a file.

    drain-within is what the target says. How long messages wait for more (max-wait) and the most workers (max-workers) are looked for, with
    three seeds; tasks at a time (CONCURRENCY) are the job's own. The costs of one run are told before and after, and the annotations for
    jobs.yaml. Ends with 1 when nothing meets the target: then what comes nearest is shown.

    \b
    fanout tune default --within 10m --since 3d
    fanout tune --pattern stampede --horizon 2h --within 6m --in-time 99.5

    JSON: before, after (cost_usd, ratio, in_time), annotations, is_met, run_count, is_complete, repeat.
    """
    percent = given("--in-time", percent_text, percent_of)
    target = Target(percent / 100, given("--within", within, duration))
    limit_s = given("--for", limit, duration)
    if len(case.patterns) > 1:
        raise click.UsageError("one pattern is tuned at a time")
    (pattern,) = case.patterns

    def run(changes: Mapping[str, str], seed: int) -> Outcome:
        changed = {**case.what_if, **changes}
        return fanout_outcome(case, check(case.scenario(pattern, changed, seed, target.within_s)), changes=changed)

    policies = [lane.policy for lane in lanes_of(case.scenario(pattern, case.what_if)).values()]
    least = max(max(one.min_workers, one.fixed_workers, one.floor) for one in policies)
    clock = SystemClock()
    until = clock.monotonic() + limit_s
    seeds = range(case.seed, case.seed + SEEDS)
    bounds, never_waits = (least, max(one.max_workers for one in policies)), not any(one.min_backlog for one in policies)
    found = tuned(run, target, bounds, seeds, lambda: clock.monotonic() > until, may_not_wait=never_waits)
    repeat = case.repeated_by("tune", "--in-time", f"{percent:g}", "--within", within, "--for", limit)
    annotations = {**case.what_if, **found.after.changes}
    if as_json:
        facts = {name: _facts(one) for name, one in (("before", found.before), ("after", found.after))}
        more = {"is_met": found.is_met, "run_count": found.run_count, "is_complete": found.is_complete, "repeat": repeat}
        show_json({**facts, "annotations": annotations, **more})
    else:
        ended = "" if found.is_complete else f", ended after {limit}: the search is not complete"
        tell(f"{found.run_count} runs of {pattern.name}, {spoken(case.scenario(pattern, {}).horizon_s)} each{ended}")
        say(*(f"{name}: {_told(one, target)}" for name, one in (("before", found.before), ("after", found.after))))
        say(*(f'{key}: "{value}"' for key, value in annotations.items()))
        tell(*_in_words(found))
        tell(f"repeat: {repeat}")
    sys.exit(EXIT_FINE if found.is_met else EXIT_TROUBLE)


def _in_words(found: Tuning) -> list[str]:
    """What is to be said of settings that stay, or are late."""
    if found.is_met:
        return [] if found.after.changes else ["nothing that was tried is cheaper: the settings stay"]
    if found.after.changes:
        return ["nothing that was tried meets the target: this comes nearest"]
    return ["nothing that was tried meets the target or comes nearer to it: the settings stay"]


def _facts(one: Tried) -> dict[str, float]:
    return {"cost_usd": round(one.cost_usd, 6), "ratio": round(one.ratio, 4), "in_time": round(one.in_time, 6)}


def _told(one: Tried, target: Target) -> str:
    return f"${one.cost_usd:,.4f} ({one.ratio:.2f}x the bound), {100 * one.in_time:.1f} % within {spoken(target.within_s)}"
