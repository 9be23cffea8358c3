"""Lists: a table on a terminal, plain columns in a pipe, JSON for programs. A cell is one line of text, whatever it is made from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

GAP = "  "
NONE = "-"
"""Stands for an empty cell in plain columns, so that every row has as many words as it has columns."""


@dataclass(frozen=True, slots=True)
class Listing:
    """`numbers` are the names of columns that are set to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[str] = frozenset()


def show(listing: Listing) -> None:
    """To standard output."""
    if sys.stdout.isatty():
        show_table(listing)
    else:
        for line in plain(listing):
            click.echo(line)


def plain(listing: Listing) -> list[str]:
    """The header and a line for each row, in columns. Nothing is cut."""
    rows = [tuple(name.upper() for name in listing.columns), *(tuple(one_line(cell) or NONE for cell in row) for row in listing.rows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(listing.columns))]
    right = [name in listing.numbers for name in listing.columns]
    return [
        GAP.join(
            cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def show_table(listing: Listing) -> None:
    """With lines and as wide as the terminal; long cells are wrapped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in listing.columns:
        table.add_column(name, justify="right" if name in listing.numbers else "left", overflow="fold")
    for row in listing.rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console(file=sys.stdout).print(table)


def one_line(text: str) -> str:
    """Without line ends and what else could move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def show_json(body: Mapping[str, object] | Sequence[object]) -> None:
    click.echo(json.dumps(body, indent=1))
