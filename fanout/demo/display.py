"""What the demo shows: lines for what happens, and, on a terminal, a live table of the lanes and their workers.

Every line also makes sense without colour and without the table.
"""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from batch.model.texts import printable
from fanout.demo.snapshot import LaneSnapshot, Snapshot
from fanout.execution.tries import WorkerTry
from fanout.output import counted

BAR_WIDTH = 24
PLAIN_WIDTH = 160
_COLOURS = {"starting": "dim", "running": "cyan", "killed": "bold red", "lost": "bold red", "share_done": "green", "drained": "green"}


class Screen:
    """Plain lines, one per change. Of a snapshot it tells when a lane has done another quarter."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: dict[str, int] = {}

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_error: object) -> None:
        return None

    def say(self, line: str) -> None:
        """Print a line about something that happened."""
        self._console.print(Text(printable(line)))

    def show(self, snapshot: Snapshot) -> None:
        """Show this snapshot."""
        for lane in snapshot.lanes:
            if not lane.submitted_count:
                continue
            quarter = min(4, 4 * lane.acked_count // lane.submitted_count)
            if quarter > self._told.get(lane.lane.name, 0):
                self._told[lane.lane.name] = quarter
                self.say(f"{snapshot.elapsed_s:5.1f} s  {lane.lane.name}: {lane.acked_count:,} of {lane.submitted_count:,} done")


class LiveScreen(Screen):
    """The lines of what happens above a table that is drawn anew."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveScreen:
        try:
            self._live.start()
        except BaseException:
            self._console.show_cursor()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(drawn(snapshot))


def console(*, plain: bool) -> Console:
    """A console on standard output. Where that is no terminal lines are not cut at 80 columns."""
    found = Console(highlight=False, soft_wrap=plain)
    if plain or not found.is_terminal:
        return Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH, no_color=True, force_terminal=False)
    return found


def screen(console: Console, *, plain: bool) -> Screen:
    return LiveScreen(console) if console.is_terminal and not plain else Screen(console)


def drawn(snapshot: Snapshot) -> Group:
    """Lanes on top, workers below."""
    rate = snapshot.acked_count / snapshot.elapsed_s if snapshot.elapsed_s > 0 else 0.0
    done = f"{snapshot.acked_count:,} of {counted(snapshot.submitted_count, 'task')} in {snapshot.elapsed_s:.0f} s"
    head = Text(f"{done}, {rate:,.0f} a second", style="bold")
    return Group(head, _lanes(snapshot.lanes), _workers(snapshot.tries))


def bar(part: int, whole: int, width: int = BAR_WIDTH) -> str:
    """Filled in proportion; full only when `part` has reached `whole`."""
    filled = width if part >= whole else width * part // whole
    return "█" * filled + "·" * (width - filled)


def _lanes(lanes: tuple[LaneSnapshot, ...]) -> Table:
    table = Table("lane", *numbers("backlog", "done", "of", "dead"), "", box=None, pad_edge=False)
    for lane in lanes:
        backlog = "?" if lane.backlog is None else f"{lane.backlog:,}"
        counts = (f"{lane.acked_count:,}", f"{lane.submitted_count:,}", f"{lane.dead_count:,}")
        table.add_row(lane.lane.name, backlog, *counts, bar(lane.acked_count, lane.submitted_count))
    return table


def _workers(tries: list[WorkerTry]) -> Table:
    table = Table(Column("execution", no_wrap=True), *numbers("worker", "retry", "taken", "share"), "", "state", box=None, pad_edge=False)
    for one in tries:
        counts = (str(one.index), str(one.retry or ""), f"{one.progress.taken:,}", f"{one.progress.share:,}")
        state = Text(one.state, style=_COLOURS.get(one.state, ""))
        table.add_row(one.execution, *counts, bar(one.progress.acked, one.progress.share), state)
    return table


def numbers(*names: str) -> list[Column]:
    """Headings of columns with numbers."""
    return [Column(name, justify="right") for name in names]
