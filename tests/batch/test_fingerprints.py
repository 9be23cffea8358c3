"""Fingerprints: dead letters of one mistake are one group, those of two are two."""

from __future__ import annotations

import pytest

from batch.model.deadletters import Replay, fingerprint_of, replay_of, title_of

TEMPLATE = """Traceback (most recent call last):
  File "/app/batch/handling/answer.py", line 81, in called
    result = context.run(_in_context, function, arguments)
  File "/home/ada/shop/handlers.py", line {line}, in resize
    return scale(task.fields["lines"])
  File "/usr/lib/python3.11/json/decoder.py", line 337, in decode
    obj, end = self.raw_decode(s)
KeyError: 'lines'
"""
TRACEBACK = TEMPLATE.format(line=12)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ValueError", "row 17 of 200 is bad"), ("ValueError", "row 3 of 9 is bad")),
        (
            ("OSError", "no 4f2a9c0d1e3b5a77-rolling-default-2026010100 here"),
            ("OSError", "no 0011223344556677-s-20260101-000000-ab12 here"),
        ),
        (("E", "at 0x7f26ff313a10"), ("E", "at 0x7fdddef96a40")),
        (("E", "user 8b0f7d3e-5c1a-4f0e-9d2b-6a7c8e9f0a1b"), ("E", "user 00000000-0000-4000-8000-000000000002")),
        (("E", "took 1.25 s\n  in all"), ("E", "took 900 s in all")),
        (("KeyError", "'lines'", TRACEBACK), ("KeyError", "'lines'", TEMPLATE.format(line=99))),
    ],
)
def test_numbers_ids_and_line_numbers_make_no_difference(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert fingerprint_of(*one) == fingerprint_of(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ValueError", "bad row"), ("TypeError", "bad row")),
        (("ValueError", "bad row"), ("ValueError", "bad column")),
        (("KeyError", "'lines'", TRACEBACK), ("KeyError", "'lines'", TRACEBACK.replace("in resize", "in crop"))),
        (("KeyError", "'lines'", TRACEBACK), ("KeyError", "'lines'", TRACEBACK.replace("handlers.py", "others.py"))),
        (("E", "facade"), ("E", "decade")),
    ],
)
def test_another_mistake_is_another_group(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert fingerprint_of(*one) != fingerprint_of(*other)


def test_frames_that_are_not_the_user_s_do_not_count() -> None:
    moved = TRACEBACK.replace("/usr/lib/python3.11/json/decoder.py", "/opt/lib/python3.12/json/scanner.py")
    assert fingerprint_of("KeyError", "'lines'", TRACEBACK) == fingerprint_of("KeyError", "'lines'", moved)


def test_a_title_is_one_short_line() -> None:
    assert title_of("KeyError", "'lines'") == "KeyError: 'lines'"
    assert title_of("ValueError", "row 17\n of 200") == "ValueError: row # of #"
    assert len(title_of("E", "x" * 10_000)) == 80


@pytest.mark.parametrize(
    "text", ["", "0 1.000 a", "1 1 a", "x", "1 1.000", "1 1.000 A B", "1000000 1.000 a", "\u0661 1.000 a", "1 1.000 a\n"]
)
def test_an_odd_attribute_is_no_replay(text: str) -> None:
    assert replay_of({"replay": text}) is None


def test_a_replay_is_read_as_it_is_written() -> None:
    replay = Replay(3, 1_767_225_600.125, "r-0123abcd")
    assert replay_of({"replay": str(replay)}) == replay
