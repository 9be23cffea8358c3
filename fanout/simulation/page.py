"""One page of a simulation that needs nothing beside itself: the table, a picture of each pattern, and the line that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fanout.output import Listing
from fanout.simulation.comparing import Outcome
from fanout.simulation.picture import picture

_STYLE = "body{font:14px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left}.n{text-align:right}svg{max-width:100%;height:auto}"


def page(outcomes: Sequence[Outcome], listing: Listing, repeat: str) -> str:
    """The whole text. Raises SettingsError where matplotlib is not installed."""
    by_pattern: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_pattern.setdefault(one.pattern, []).append(one)
    pictures = [picture(some, "svg").decode() for some in by_pattern.values()]
    settings = dict.fromkeys(f"{one.who}: {one.settings}" for one in outcomes if one.settings)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>fanout simulate</title>',
            f"<style>{_STYLE}</style></head><body><h1>fanout simulate</h1>",
            _table(listing),
            *(f"<p>{escape(line)}</p>" for line in settings),
            # What stands before the element, the declaration and the type of document, belongs into a file of its own.
            *(text[text.index("<svg") :] for text in pictures),
            f"<p><code>{escape(repeat)}</code></p></body></html>\n",
        ]
    )


def _table(listing: Listing) -> str:
    kinds = [' class="n"' if name in listing.numbers else "" for name in listing.columns]

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}{kind}>{escape(cell)}</{tag}>' for kind, cell in zip(kinds, cells, strict=True))}</tr>"

    return f"<table>{row(listing.columns, 'th')}{''.join(row(cells, 'td') for cells in listing.rows)}</table>"
