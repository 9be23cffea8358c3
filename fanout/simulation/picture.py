"""One picture of a pattern: backlog, workers and cost over time, each rule in a column. matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

from batch.model.errors import SettingsError
from fanout.simulation.comparing import Outcome

FORMATS = ("svg", "png")
INCHES = (2.3, 1.5)
"""Of one small panel."""
LEFT, ABOVE, BELOW = 0.7, 0.7, 0.5
_ROWS = ("backlog", "workers", "cost, $")
_SCALES = ((2 * 86_400.0, 86_400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (0.0, 60.0, "minutes"))
_NO_METADATA = {"svg": dict.fromkeys(("Creator", "Date", "Format", "Type")), "png": {"Software": None}}
_STYLE = {
    "svg.hashsalt": "fanout",
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def picture_format(path: str) -> str:
    """By the suffix. Raises ValueError with the rule."""
    kind = path.rpartition(".")[2].lower()
    if kind not in FORMATS:
        raise ValueError("a file whose name ends with .svg or .png")
    return kind


def picture(outcomes: Sequence[Outcome], kind: str) -> bytes:
    """A column for each outcome of one pattern, a row for each measure, all at the same scale; the same bytes for the same outcomes. Raises
    SettingsError where matplotlib is not installed."""
    new_figure, styled = matplotlib_of_ours()
    width, height = INCHES[0] * len(outcomes) + LEFT, INCHES[1] * len(_ROWS) + ABOVE + BELOW
    place = {"left": LEFT / width, "right": 0.99, "top": 1 - ABOVE / height, "bottom": BELOW / height, "wspace": 0.08, "hspace": 0.12}
    with styled(_STYLE):
        figure = new_figure(figsize=(width, height))
        axes = figure.subplots(len(_ROWS), len(outcomes), sharex=True, sharey="row", squeeze=False, gridspec_kw=place)
        span_s = max((one.course[-1].at_s for one in outcomes if one.course), default=0.0)
        _, unit_s, unit = next(scale for scale in _SCALES if span_s >= scale[0])
        for column, outcome in enumerate(outcomes):
            times = [point.at_s / unit_s for point in outcome.course]
            for row, values in enumerate(_series(outcome)):
                axes[row][column].fill_between(times, values, step="pre", color="#3b6fb6", linewidth=0)
            title = f"{outcome.who}\n{outcome.ratio:.2f}x the bound, {100 * outcome.in_time:.1f} % in time"
            axes[0][column].set_title(title, parse_math=False)
            axes[-1][column].set_xlabel(unit)
        for row, name in enumerate(_ROWS):
            most = max((value for outcome in outcomes for value in _series(outcome)[row]), default=0.0)
            axes[row][0].set_ylim(0, 1.05 * most or 1.0)
            axes[row][0].set_ylabel(name)
        figure.suptitle(outcomes[0].pattern, parse_math=False)
        into = BytesIO()
        figure.savefig(into, format=kind, metadata=_NO_METADATA[kind])
    return into.getvalue()


def _series(outcome: Outcome) -> tuple[list[float], list[float], list[float]]:
    """Backlog, workers and dollars at each point. Workers are those that were paid for since the point before: many live less long than the
    time between two points."""
    course = outcome.course
    usd_per_s = outcome.cost_usd / outcome.cost_s if outcome.cost_s else 0.0
    steps = [(one.cost_s - before.cost_s) / (one.at_s - before.at_s) for before, one in pairwise(course)]
    return [float(one.undelivered_count) for one in course], [0.0, *steps][: len(course)], [one.cost_s * usd_per_s for one in course]


def matplotlib_of_ours() -> tuple[Any, Any]:
    """The figure, without any window, and its styles. Raises SettingsError where matplotlib is not installed."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise SettingsError(["pictures need matplotlib, which is not installed: install 'fanout-batch[simulation]'"]) from error
    return Figure, rc_context
