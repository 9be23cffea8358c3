"""Tables of recorded benchmarks, and their place in docs/benchmarks.md.

Nothing between a pair of markers is written by hand: a test compares it with the recorded file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.recording import Measure, Recording

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = Path(__file__).resolve().parent / "results"


def table(recording: Recording, columns: Sequence[str]) -> str:
    """One row for each measure: the median of each column with its lowest and highest run, of two columns their ratio, and the aim."""
    return "\n".join([taken(recording), "", *rows(recording.measures, columns, ratio=len(columns) == 2), "", *conditions(recording)])


def taken(recording: Recording) -> str:
    """Command and day of a recording, and how to read its numbers."""
    return f"`{recording.command}`, {recording.taken[:10]}. Median of the runs, lowest to highest in brackets."


def conditions(recording: Recording) -> list[str]:
    """The machine and the notes."""
    facts = ", ".join(f"{name} {value}" for name, value in recording.machine.items())
    return [f"Machine: {facts}; load before the start {recording.load:g}.", *(f"\n{note}" for note in recording.notes)]


def rows(measures: Sequence[Measure], columns: Sequence[str], *, ratio: bool = False, aim: bool = True) -> list[str]:
    """A table's lines. `ratio` is that of the first two columns."""
    head = ["measure", "unit", *columns, *([f"{columns[0]} ÷ {columns[1]}"] if ratio else []), *(["wanted"] if aim else [])]
    return grid(head, [_row(measure, columns, ratio=ratio, aim=aim) for measure in measures])


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of any table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


def _row(measure: Measure, columns: Sequence[str], *, ratio: bool, aim: bool) -> list[str]:
    divided = [_ratio(*(measure.middle(column) for column in columns[:2]))] if ratio else []
    cells = [cell(measure.runs.get(column, ())) for column in columns]
    return [measure.name, measure.unit, *cells, *divided, *([measure.aim] if aim else [])]


def _ratio(first: float | None, second: float | None) -> str:
    return f"{first / second:.2f}" if first is not None and second else "–"


def cell(runs: Sequence[float], unit: str = "") -> str:
    """The median of runs with the lowest and the highest; a dash without any."""
    if not runs:
        return "–"
    spread = f" ({_number(min(runs))}–{_number(max(runs))})" if len(runs) > 1 else ""
    return f"{_number(median(runs))}{unit}{spread}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def block(name: str, text: str) -> str:
    return f"<!-- {name}: written by the benchmark -->\n\n{text}\n\n<!-- end of {name} -->"


def put_into(page: str, name: str, text: str) -> str:
    """`page` with the block of that name replaced. Raises ValueError if the page has no such block."""
    start, end = page.find(f"<!-- {name}:"), page.find(f"<!-- end of {name} -->")
    if not 0 <= start < end:
        raise ValueError(f"the page has no block `{name}`: put `<!-- {name}: -->` and `<!-- end of {name} -->` where it belongs")
    return page[:start] + block(name, text) + page[end + len(f"<!-- end of {name} -->") :]
