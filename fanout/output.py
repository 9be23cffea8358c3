"""What a command prints and how it ends: lists, JSON, errors in one line, and the exit code.

Names, reasons and errors come over the network, from clients among others: what a person reads of them has passed `printable`.

Exit codes: 0 when all is well, 1 when something could not be done or a lane is in trouble, 2 for wrong usage or settings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import click

from batch.model.errors import FanoutError, SettingsError
from batch.model.texts import printable

EXIT_FINE = 0
EXIT_TROUBLE = 1
EXIT_USAGE = 2
TRACEBACK = "FANOUT_TRACEBACK"
GAP = "  "
NONE = "-"
"""Stands for an empty cell in plain columns, so that every row has as many words as it has columns."""
WIDTH = 80
"""Every list fits into it, with names of lanes of up to twelve letters."""
NAMED = 10
"""The most names in one line."""
_WHOLE = re.compile(r"`[^`]*`|\bgcloud .*|(?<=: )fanout .*")
"""A command is there to be copied: a line break within it would run half of it."""
_CLIENTS = frozenset({"google", "grpc", "requests", "urllib3", "http", "httpx", "httpcore"})
"""Libraries whose errors come from a service, or from the way to it."""


class CommandFailed(click.ClickException):
    """An error with an exit code of its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = code  # type: ignore[misc]  # click declares it on the class and reads it from the instance


@contextmanager
def explained_errors() -> Iterator[None]:
    """An error that Fanout can explain ends the command with the error's own text, one problem a line: exit code 2 for wrong settings, else
    1. An unexpected one ends it with exit code 1 and one line; with FANOUT_TRACEBACK set it is raised as it is."""
    try:
        yield
    except SettingsError as error:
        raise CommandFailed(EXIT_USAGE, "\n".join(map(printable, error.problems))) from error
    except FanoutError as error:
        raise CommandFailed(EXIT_TROUBLE, one_line(str(error))) from error
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError, ModuleNotFoundError):
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        raise CommandFailed(EXIT_TROUBLE, unforeseen(error)) from error


def unforeseen(error: Exception) -> str:
    """One line about an unexpected error: either a service could not be reached, or this program has a fault."""
    told = one_line(str(error))[:400]
    what = f"{type(error).__name__}: {told}" if told else type(error).__name__
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS:
        return f"a service could not be reached, or gave no usable answer ({what}): look at credentials, region and network, try again"
    return f"a fault in Fanout itself ({what}): {TRACEBACK}=1 shows its traceback, report it with that"


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of one-line texts. `numbers` are the names of columns that are aligned to the right. `below` has lines for each row, which
    have no columns: what is long, and is looked at once the row was found."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[str] = frozenset()
    below: tuple[tuple[str, ...], ...] = ()


def show(listing: Listing) -> None:
    """To standard output: a table on a terminal that is wide enough, else plain columns. No cell is cut or folded: ids are there to be
    copied."""
    lines = plain(listing)
    frame = len(listing.columns) + 3
    if sys.stdout.isatty() and not listing.below and max(map(len, lines)) + frame <= shutil.get_terminal_size().columns:
        show_table(listing)
        return
    for at, line in enumerate(lines):
        click.echo(line)
        if 0 < at <= len(listing.below):
            tell(*(f"  {one_line(one)}" for one in listing.below[at - 1]))


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
    """With a frame around each cell."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in listing.columns:
        table.add_column(name, justify="right" if name in listing.numbers else "left", no_wrap=True)
    for row in listing.rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console(file=sys.stdout).print(table)


def counted(count: int, noun: str) -> str:
    """`1 task`, `1,500 tasks`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def some_of(names: Sequence[str]) -> str:
    """The first of them, and how many more there are: a line about hundreds would hide all others."""
    rest = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{rest}"


def one_line(text: str) -> str:
    """As a single line of words: white space of any kind is one blank, and the rest `printable`."""
    return printable(" ".join(text.split()))


def say(*lines: str, err: bool = False) -> None:
    """Each on a line of its own, `printable`."""
    for line in lines:
        click.echo(printable(line), err=err)


def tell(*lines: str, err: bool = False) -> None:
    """As `say`, for sentences: on a terminal a line that is too long goes on below, indented. Ids and commands are not folded."""
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else 0
    say(*(part for line in lines for part in (wrapped(line, width) if 0 < width < len(line) else [line])), err=err)


def wrapped(line: str, width: int) -> list[str]:
    """A line as several of at most `width` characters, but for words and commands that are longer."""
    words = line.lstrip(" ")
    indent = " " * (len(line) - len(words))
    kept = _WHOLE.sub(lambda found: found[0].replace(" ", "\0"), words)
    parts = textwrap.wrap(
        kept, width, initial_indent=indent, subsequent_indent=f"{indent}    ", break_long_words=False, break_on_hyphens=False
    )
    return [part.replace("\0", " ") for part in parts]


def show_json(body: Mapping[str, object] | Sequence[object]) -> None:
    click.echo(json.dumps(body, indent=1))
