"""Lists: plain columns that a program can split, a table on a terminal, and no cell that can play with a terminal."""

from __future__ import annotations

import io

import pytest

from fanout.output import Listing, counted, one_line, plain, show, show_table, tell

LISTING = Listing(("name", "count"), (("a", "7"), ("long name", ""), ("x", "100000")), frozenset({"count"}))


def test_plain_columns() -> None:
    assert plain(LISTING) == ["NAME        COUNT", "a               7", "long name       -", "x          100000"]


def test_a_table_has_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(Listing(("name",), (("[red]not markup[/red]",),)))
    assert "[red]not markup[/red]" in capsys.readouterr().out


def test_a_cell_is_one_line_without_control_characters() -> None:
    assert one_line("a\nb\t c\x1b[2Jd\u202ee") == r"a b c\x1b[2Jd\u202ee"


@pytest.mark.parametrize(("width", "framed"), [(40, True), (22, True), (21, False)])
def test_a_table_is_drawn_only_where_no_cell_is_folded(monkeypatch: pytest.MonkeyPatch, width: int, framed: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    show(LISTING)
    assert ("│" in terminal.getvalue()) is framed
    assert all(cell in terminal.getvalue() for row in LISTING.rows for cell in row)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_counts_agree() -> None:
    assert [counted(count, "task") for count in (0, 1, 2, 1500)] == ["0 tasks", "1 task", "2 tasks", "1,500 tasks"]


def test_a_sentence_is_wrapped_on_a_terminal_and_neither_ids_nor_commands_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "  lane default: its workers failed, `fanout execution default-x7k2p` tells of 9f2c4e1ab8d03f57-rolling-default-2026013112"
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "50")
    tell(line, "short", "to fix it: gcloud pubsub subscriptions update default --ack-deadline=60 --project=a-project")
    assert terminal.getvalue().splitlines() == [
        "  lane default: its workers failed,",
        "      `fanout execution default-x7k2p` tells of",
        "      9f2c4e1ab8d03f57-rolling-default-2026013112",
        "short",
        "to fix it:",
        "    gcloud pubsub subscriptions update default --ack-deadline=60 --project=a-project",
    ]
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stdout", pipe)
    tell(line)
    assert pipe.getvalue() == f"{line}\n"


def test_lines_without_columns_stand_below_their_rows(capsys: pytest.CaptureFixture[str]) -> None:
    show(Listing(("name",), (("a",), ("b",), ("c",)), below=(("of a", "more\nof a"), (), ("of c",))))
    assert capsys.readouterr().out.splitlines() == ["NAME", "a", "  of a", "  more of a", "b", "c", "  of c"]
