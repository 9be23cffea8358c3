"""Tables of recorded benchmarks, and their place in docs/benchmarks.md.

Nothing between a pair of markers is written by hand: a test compares it with the recorded file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.recording import Measure, Recording

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = Path(__file__).resolve().parent / "results"


def table(recording: Recording, columns: Sequence[str]) -> str:
    """One row for each measure: the median of each column with its lowest and highest run, of two columns their ratio, and the aim."""
    ratio = [f"{columns[0]} ÷ {columns[1]}"] if len(columns) == 2 else []
    head = ["measure", "unit", *columns, *ratio, "wanted"]
    rows = [head, ["---"] * len(head), *(_row(measure, columns) for measure in recording.measures)]
    facts = ", ".join(f"{name} {value}" for name, value in recording.machine.items())
    lines = [
        f"`{recording.command}`, {recording.taken[:10]}. Median of the runs, lowest to highest in brackets.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Machine: {facts}; load before the start {recording.load:g}.",
        *(f"\n{note}" for note in recording.notes),
    ]
    return "\n".join(lines)


def _row(measure: Measure, columns: Sequence[str]) -> list[str]:
    ratio = [_ratio(*(measure.middle(column) for column in columns))] if len(columns) == 2 else []
    return [measure.name, measure.unit, *(_cell(measure, column) for column in columns), *ratio, measure.aim]


def _ratio(first: float | None, second: float | None) -> str:
    return f"{first / second:.2f}" if first is not None and second else "–"


def _cell(measure: Measure, column: str) -> str:
    middle = measure.middle(column)
    if middle is None:
        return "–"
    runs = measure.runs[column]
    spread = f" ({_number(min(runs))}–{_number(max(runs))})" if len(runs) > 1 else ""
    return _number(middle) + spread


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def block(name: str, text: str) -> str:
    return f"<!-- {name}: written by the benchmark -->\n\n{text}\n\n<!-- end of {name} -->"


def put_into(page: str, name: str, text: str) -> str:
    """`page` with the block of that name replaced. Raises ValueError if the page has no such block."""
    start, end = page.find(f"<!-- {name}:"), page.find(f"<!-- end of {name} -->")
    if not 0 <= start < end:
        raise ValueError(f"the page has no block `{name}`: put `<!-- {name}: -->` and `<!-- end of {name} -->` where it belongs")
    return page[:start] + block(name, text) + page[end + len(f"<!-- end of {name} -->") :]
