"""What a child prints: logged within bounds, its end kept, whatever the bytes."""

from __future__ import annotations

import logging

import pytest

from batch.worker.executors.output import MAX_LINE_BYTES, MAX_LINES, TAIL_BYTES, Output


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if vars(record).get("event") == "handler_output"]


@pytest.fixture
def output(caplog: pytest.LogCaptureFixture) -> Output:
    caplog.set_level(logging.INFO, "fanout")
    made = Output()
    made.begin(task_id="t")
    return made


def test_lines_in_pieces(output: Output, caplog: pytest.LogCaptureFixture) -> None:
    for piece in (b"on", b"e\ntw", b"o\r\n\n", b"the end"):
        output.feed(piece)
    assert lines(caplog) == ["one", "two"]
    output.end()
    assert lines(caplog) == ["one", "two", "the end"]
    assert {vars(record)["task_id"] for record in caplog.records} == {"t"}


def test_a_flood_is_bounded_and_counted(output: Output, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        output.feed(b"".join(b"%d-%d\n" % (number, line) for line in range(MAX_LINES)))
    output.feed(b"z" * 1_000_000)
    output.end()
    assert len(lines(caplog)) == MAX_LINES + 1
    assert "more bytes were printed" in lines(caplog)[-1]
    assert len(output.tail) == TAIL_BYTES
    assert len(output._line) == 0


def test_binary_without_a_line_end_is_cut(output: Output, caplog: pytest.LogCaptureFixture) -> None:
    output.feed(b"\xff" * (MAX_LINE_BYTES * 2 + 10))
    output.end()
    assert [len(line) for line in lines(caplog)] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 10]


def test_each_attempt_has_lines_and_an_end_of_its_own(output: Output, caplog: pytest.LogCaptureFixture) -> None:
    output.feed(b"first")
    output.begin(task_id="u")
    output.feed(b"second\n")
    assert [(vars(record)["task_id"], record.getMessage()) for record in caplog.records] == [("t", "first"), ("u", "second")]
    assert output.tail == "second"
