"""Lists: plain columns that a program can split, a table on a terminal, and no cell that can play with a terminal."""

from __future__ import annotations

import pytest

from fanout.listing import Listing, one_line, plain, show_table

LISTING = Listing(("name", "count"), (("a", "7"), ("long name", ""), ("x", "100000")), frozenset({"count"}))


def test_plain_columns() -> None:
    assert plain(LISTING) == ["NAME        COUNT", "a               7", "long name       -", "x          100000"]


def test_a_table_has_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(Listing(("name",), (("[red]not markup[/red]",),)))
    assert "[red]not markup[/red]" in capsys.readouterr().out


def test_a_cell_is_one_line_without_control_characters() -> None:
    assert one_line("a\nb\t c\x1b[2Jd\u202ee") == "a b c [2Jd e"
