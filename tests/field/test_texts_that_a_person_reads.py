"""What clients put into reasons, ids and names reaches a person's terminal as text: it steers nothing and hides nothing."""

from __future__ import annotations

import io
import json
import random
import sys
import unicodedata
from contextlib import nullcontext
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from batch.client.submit import NewTask, checked_message
from batch.handlers.file_processing import FileProcessing
from batch.handling.registry import Registry
from batch.model.errors import DependencyError, MessageRefused, NameRefused, SettingsError
from batch.model.names import checked
from batch.model.texts import printable
from batch.testing import MemoryObjectStore
from fanout import cloud, commands, output
from fanout.demo.display import Screen
from fanout.doctor.finding import Finding, Verdict, report
from fanout.submission.proof import command

ESCAPE, TURN, LINE, HALF = "\x1b[2J\x1b[31m", "\u202egnp.exe", "two\nlines", "half \ud83d"
UGLY = f"{ESCAPE} {TURN} {LINE} {HALF} \x9b31m \u2028 \u200f \u061c \u2066"
SHOWN = r"\x1b[2J\x1b[31m \u202egnp.exe two\nlines half \ud83d \x9b31m \u2028 \u200f \u061c \u2066"
MARKS = ["\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069", "\u200e", "\u200f", "\u061c"]
FINE_NAMES = "größer", "naïve café", "日本語\u3000です", "می\u200cخواهم", "👩\u200d👩\u200d👧", "❤️", "🏴\U000e0067\U000e0062\U000e007f"
FINE = [*FINE_NAMES, "1\u00a0000 €", r"C:\new"]


def harmless(text: str) -> bool:
    return not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") or one in MARKS for one in text)


def test_what_cannot_be_seen_is_escaped() -> None:
    assert printable(UGLY) == SHOWN


@pytest.mark.parametrize("text", FINE)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text == output.one_line(text) or "\u3000" in text or "\u00a0" in text


@given(st.text(st.characters()))
def test_whatever_it_is_it_can_be_printed_and_changes_nothing_else(text: str) -> None:
    shown = printable(text)
    assert harmless(shown)
    shown.encode()
    assert harmless(output.one_line(text))
    assert printable(shown) == shown


def test_what_a_name_may_not_hold_would_be_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        try:
            checked(f"a{chr(code)}b")
        except NameRefused:
            assert printable(chr(code)) != chr(code) or chr(code) in "/\\"


def proven(reason: str) -> tuple[str, str]:
    """`fanout proof` of a submission with one dead task of this reason: its text and its JSON."""
    store = MemoryObjectStore()
    facts = {"submission_id": "s-1", "task_count": 1, "refused_count": 0, "part_count": 1, "lane": "l", "topic": "t", "shards": ["s-1"]}
    times = {"submitted_at": "2026-01-01T00:00:00.000000Z", "closed_at": "2026-01-01T00:00:00.000000Z"}
    store.write("submissions/s-1/submission.json", json.dumps({**facts, **times}).encode())
    store.write("submissions/s-1/manifest-000000.jsonl", b'{"task_id": "a", "task_type": "t", "shard": "s-1"}\n')
    line = {"task_id": "a", "task_type": "t", "outcome": "dead", "reason": reason, "finished_at": "2026-01-01T00:00:01.000000Z"}
    more = {"attempt_count": 1, "message_id": "1", "execution": "x", "index": 0, "retry": 0}
    store.write("outcomes/s-1/x-0-0-0.jsonl", json.dumps({**line, **more}).encode() + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloud, "open_store", lambda *_arguments: nullcontext(store))
        told = [CliRunner().invoke(command, ["s-1", "--project", "p", "--bucket", "b", *more]).stdout for more in ([], ["--json"])]
    return told[0], told[1]


def test_a_dead_reason_is_shown_on_its_own_line() -> None:
    text, as_json = proven(UGLY)
    (line,) = [one for one in text.split("\n") if "such as a" in one]
    assert SHOWN in line
    assert all(harmless(one) for one in text.split("\n"))
    assert [one["reason"] for one in json.loads(as_json)["dead"]] == [UGLY]


def test_a_finding_of_the_doctor_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(*report([Finding(f"subscription {TURN}", "check", Verdict.WRONG, UGLY, UGLY, f"gcloud {ESCAPE}")], show_fine=False))
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert len(lines) == 4
    assert all(map(harmless, lines))


def test_a_table_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    listing = output.Listing(("execution", "state"), ((TURN, UGLY),))
    output.show(listing)
    output.show_table(listing)
    assert all(map(harmless, capsys.readouterr().out.split("\n")))


def test_the_demo_shows_it_as_text() -> None:
    written = io.StringIO()
    Screen(Console(file=written, width=400)).say(UGLY)
    assert written.getvalue() == f"{SHOWN}\n"


@pytest.mark.parametrize(
    "error", [DependencyError(UGLY), SettingsError([UGLY, "second"]), RuntimeError(UGLY), OSError(UGLY), click.ClickException(UGLY)]
)
def test_an_error_of_a_command_is_shown_as_text(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        with output.explained_errors():
            raise error

    monkeypatch.setattr(commands.LazyGroup, "get_command", lambda *_arguments: broken)
    told = CliRunner().invoke(commands.main, ["proof"])
    assert told.exit_code in (1, 2)
    assert "\\x1b[2J" in told.stderr
    assert all(map(harmless, told.stderr.split("\n")))


@pytest.mark.parametrize("mark", [*MARKS, "\u2028", "\u2029", "\n", "\x1b", "\x9b", "\x7f", "\ud83d"], ids=ascii)
def test_a_name_or_type_with_a_mark_that_is_not_seen_is_refused_at_the_door(mark: str) -> None:
    with pytest.raises(NameRefused, match="holds a control character"):
        checked(f"report{mark}fdp.exe")
    registry = Registry()
    registry.task("file_processing", payload=FileProcessing)(print)
    asked: dict[str, Any] = {"lane": "l", "unix_s": 1.7e9, "rng": random.Random(1), "check": None}
    with pytest.raises(MessageRefused, match="filename"):
        registry["file_processing"].checked({"filename": f"report{mark}fdp.exe"})
    with pytest.raises(MessageRefused, match="task_type"):
        checked_message(NewTask(f"file{mark}processing"), **asked)


@pytest.mark.parametrize("name", FINE_NAMES)
def test_a_name_in_any_language_is_accepted(name: str) -> None:
    assert checked(name) == name
