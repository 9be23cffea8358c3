"""The words of the code base are those of the field: one word for one thing, and nothing that only its authors understand.

A word that this test refuses has a better one beside it. Where such a word is right, the file stands in ALLOWED with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("batch", "controller", "intake", "fanout", "local_cloud", "bench", "docs", "README.md", "CONTRIBUTING.md", "jobs.yaml")
ENDINGS = {".py", ".md", ".yaml", ".svg"}

INSTEAD_OF = {
    r"hand(s|ed|ing)?[ _]back|g[ai]v(e|es|en|ing)[ _](it |them |one )?back": "nack (with a delay)",
    r"suspect(s|ed)?": "quarantined task, poison task",
    r"anteroom": "queue",
    r"in[ _]hand|in (its|their|our|a worker's) hands": "outstanding (messages, bytes)",
    r"fenc(e|es|ed|ing)": "claim",
    r"beats?": "heartbeat",
    r"chance": "rng, probability, luck",
    r"witness(es)?": "observer",
    r"condens(e|es|ed|ing)": "compact",
    r"bark(s|ed|ing)?": "fired",
    r"reliev(e|es|ed|ing)": "flush",
    r"reclaim(s|ed|ing)?": "shut down",
    r"unpark(s|ed)?|park(s|ed|ing)?": "delayed",
    r"start record": "in-progress marker",
    r"let(s|ting)?[ _]go": "release, nack",
    r"(is|are|was|were) told of": "name the actor and the effect",
    r"none any ?more": "say what it is now",
    r"what comes of": "name the effect",
    r"less than nothing": "negative",
    r"nobody's": "unassigned",
    r"who(so)?ever": "name the actor",
}
"""By pattern (a whole word, in any case, also as a part of a name with underscores): what to write."""

ALLOWED: dict[tuple[str, str], str] = {}
"""By file and pattern: why the word is right there."""


def texts() -> Iterator[Path]:
    for place in PLACES:
        path = ROOT / place
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (one for one in files if one.suffix in ENDINGS and "__pycache__" not in one.parts)


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z])(?:{pattern})(?![a-z])|(?<![A-Z])(?:{pattern.title()})(?![a-z])", re.IGNORECASE)


def found(text: str, pattern: str) -> list[str]:
    """The lines of a text with the word, each with its number."""
    return [f"{number}: {line.strip()[:120]}" for number, line in enumerate(text.splitlines(), 1) if compiled(pattern).search(line)]


def test_words_are_those_of_the_field() -> None:
    any_word = compiled("|".join(INSTEAD_OF))
    wrong = []
    for path in texts():
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        if any_word.search(text):
            refused = [pattern for pattern in INSTEAD_OF if (name, pattern) not in ALLOWED]
            wrong += [f"write {INSTEAD_OF[pattern]!r} in {name}:{line}" for pattern in refused for line in found(text, pattern)]
    assert not wrong, "\n".join(wrong)


def test_what_is_allowed_is_needed() -> None:
    needless = [key for key in ALLOWED if not found((ROOT / key[0]).read_text(encoding="utf-8"), key[1])]
    assert not needless, f"remove from ALLOWED: {needless}"


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("it hands back the message", r"hand(s|ed|ing)?[ _]back|g[ai]v(e|es|en|ing)[ _](it |them |one )?back"),
        ("def hand_back(self)", r"hand(s|ed|ing)?[ _]back|g[ai]v(e|es|en|ing)[ _](it |them |one )?back"),
        ("MAX_SUSPECTS = 3", r"suspect(s|ed)?"),
        ("self._beat()", r"beats?"),
    ],
)
def test_a_word_is_found_in_sentences_and_in_names(text: str, pattern: str) -> None:
    assert found(text, pattern)


@pytest.mark.parametrize("text", ["a heartbeat", "the drumbeats", "a spark", "parquet", "offence"])
def test_a_part_of_another_word_is_not_meant(text: str) -> None:
    assert not any(found(text, pattern) for pattern in INSTEAD_OF)
