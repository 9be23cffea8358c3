"""`fanout simulate`: what Fanout makes of a pattern, of a file's arrivals or of a lane's past, beside others' rules."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from fanout import cloud
from fanout.output import Listing, show, show_json, tell
from fanout.simulation.case import Case, case_options
from fanout.simulation.comparing import Outcome, outcomes_of, wins
from fanout.simulation.history import Itself
from fanout.simulation.options import NONE, given, rivals_of
from fanout.simulation.page import page
from fanout.simulation.picture import matplotlib_of_ours, picture, picture_format

COLUMNS = ("pattern", "who", "cost", "bound", "workers", "empty", "in time")
NUMBERS = frozenset(COLUMNS[2:])
FAR = 100
ITSELF = "the lane itself"


@click.command("simulate")
@case_options()
@click.option("--rivals", default=NONE, show_default=True, help="all, or kinds and names, separated by commas; a kind shows its best.")
@click.option(
    "--picture", "picture_path", default="", type=click.Path(dir_okay=False), help="Write backlog, workers and cost: .svg or .png."
)
@click.option("--html", "html_path", default="", type=click.Path(dir_okay=False), help="Write one page with table and pictures.")
@cloud.as_json_option
def command(case: Case, rivals: str, picture_path: str, html_path: str, as_json: bool) -> None:
    """Simulate arrivals: the controller's own ticks decide, in a world that only counts.

    COST is what workers are billed, at list prices; BOUND how many times that is of what nobody could do it for, knowing all beforehand;
    EMPTY workers did nothing; IN TIME is the share of messages that were done within drain-within of when they could first be taken. The
    last line repeats the run.

    With --what-if its annotations are tried beside those that the lane has, or the defaults. Of a lane's past the first line tells what the
    lane launched itself, at the cost that was predicted, or came of it.

    \b
    fanout simulate --pattern steady --horizon 1h --rivals keda-default,cron
    fanout simulate --arrivals monday.csv --message-s lognormal:2:0.5 --html monday.html
    fanout simulate --from-history default --since 3d --what-if drain-within=5m,max-workers=50

    JSON: runs (pattern, who, settings, cost_s, cost_usd, bound_s, ratio, worker_count, launch_count, empty_count, done_count, late_count,
    in_time), wins (by who and by whom: patterns), itself (launch_count, worker_count, cost_usd) of a lane, and repeat.
    """
    wanted = given("--rivals", rivals, rivals_of)
    kind = given("--picture", picture_path, picture_format) if picture_path else ""
    if kind and len(case.patterns) > 1:
        raise click.UsageError("--picture shows one pattern; --html has a picture of each")
    for option, path in (("--picture", picture_path), ("--html", html_path)):
        if path:
            given(option, path, _can_be_written)
            matplotlib_of_ours()
    outcomes = outcomes_of(case, wanted, _tell_progress)
    repeat = case.repeated_by("simulate", "--rivals", rivals)
    if kind:
        Path(picture_path).write_bytes(picture(outcomes, kind))
    if html_path:
        Path(html_path).write_text(page(outcomes, listing(outcomes, case.itself), repeat), encoding="utf-8")
    if as_json:
        itself = case.itself and {name: getattr(case.itself, name) for name in case.itself.__slots__}
        show_json({"runs": [one.body for one in outcomes], "wins": wins(outcomes), "itself": itself, "repeat": repeat})
        return
    show(listing(outcomes, case.itself))
    if len(case.patterns) > 1 and len({one.who for one in outcomes}) > 1:
        click.echo("")
        show(wins_listing(outcomes))
        tell("A number says in how many patterns the row is cheaper than the column, with no fewer messages in time.")
    tell(*dict.fromkeys(f"{one.who}: {one.settings}" for one in outcomes if one.settings))
    tell(f"repeat: {repeat}")


def listing(outcomes: Sequence[Outcome], itself: Itself | None = None) -> Listing:
    """A row for each outcome."""
    rows = [
        (
            one.pattern,
            one.who,
            f"${one.cost_usd:,.4f}",
            f"{one.ratio:.2f}x" if one.ratio < FAR else f"{one.ratio:,.0f}x",
            f"{one.worker_count:,}",
            f"{one.empty_count:,}",
            f"{100 * one.in_time:.1f} %",
        )
        for one in outcomes
    ]
    if itself is not None:
        cost = "" if itself.cost_usd is None else f"${itself.cost_usd:,.4f}"
        rows = [(outcomes[0].pattern, ITSELF, cost, "", f"{itself.worker_count:,}", "", ""), *rows]
    return Listing(COLUMNS, tuple(rows), NUMBERS)


def wins_listing(outcomes: Sequence[Outcome]) -> Listing:
    """Who wins over whom, columns by the numbers of the rows."""
    table = wins(outcomes)
    numbers = {who: str(number) for number, who in enumerate(table, start=1)}
    rows = [(f"{numbers[who]} {who}", *(str(row.get(other, "")) for other in table)) for who, row in table.items()]
    return Listing(("wins of", *numbers.values()), tuple(rows), frozenset(numbers.values()))


def _can_be_written(path: str) -> None:
    """Before the minutes that a simulation may take. Raises ValueError."""
    if not os.access(Path(path) if Path(path).exists() else Path(path).parent, os.W_OK):
        raise ValueError("it cannot be written: the folder is not there, or not yours")


def _tell_progress(what: str) -> None:
    """To a person who waits at a terminal."""
    if sys.stderr.isatty():
        click.echo(f"simulating {what} ...", err=True)
