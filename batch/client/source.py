"""Tasks in a file as clients send them: NDJSON or a JSON array, read item by item, never held as a whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from batch.client.strict import Strict
from batch.client.submit import NewTask, Refusal, task_from_line, task_of
from batch.model.errors import MessageRefused
from batch.model.message import MAX_MESSAGE_BYTES

PIECE = 1 << 18
MAX_ITEM = MAX_MESSAGE_BYTES + 1_000_000
"""Bytes of one item as its client writes it, with spaces and escapes; more is not held to find its end."""
_SPACE = " \t\r\n"
_AFTER = (*_SPACE, ",", "]")
_AT_THE_END = 32
"""An error this near to the end of what was read may only mean that the rest is missing."""


def tasks_in(file: BinaryIO) -> Iterator[NewTask | Refusal]:
    """From the beginning of the file. Positions are lines of NDJSON, or items of the array, from 1. Raises MessageRefused for an array that
    cannot be read on; a wrong line or item is a Refusal."""
    file.seek(0)
    if is_array(file):
        yield from (_task(value, problem, position) for position, (value, problem) in enumerate(_Array(file), start=1))
    else:
        yield from _lines(file)


def is_array(file: BinaryIO) -> bool:
    """Whether the first byte that is no space begins an array; the file stands at its beginning afterwards."""
    while piece := file.read(PIECE):
        begins = piece.removeprefix(codecs.BOM_UTF8).lstrip()
        if begins:
            file.seek(0)
            return begins.startswith(b"[")
    file.seek(0)
    return False


def _lines(file: BinaryIO) -> Iterator[NewTask | Refusal]:
    position, strict = 0, Strict()
    while line := file.readline(MAX_ITEM):
        position += 1
        if len(line) == MAX_ITEM and not line.endswith(b"\n"):
            while (rest := file.readline(PIECE)) and not rest.endswith(b"\n"):
                pass
            yield Refusal(position, _too_large("the line"))
            continue
        line = line.removeprefix(codecs.BOM_UTF8) if position == 1 else line
        if line.strip():
            yield task_from_line(line, position, strict)


def _task(value: Any, problem: str, position: int) -> NewTask | Refusal:
    return Refusal(position, problem) if problem else task_of(value, position)


def _too_large(what: str) -> str:
    return f"{what} is larger than {MAX_MESSAGE_BYTES} bytes; put large data into the bucket and name the object instead"


class _Array:
    """The values of an array, each with what is wrong with it; the window holds little more than one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._json = file, Strict()
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False
        self._count = 0

    def __iter__(self) -> Iterator[tuple[Any, str]]:
        try:
            self._skip()  # the bracket
            if self._look() == "]":
                self._skip()
            else:
                yield from self._values()
            if self._look():
                raise ValueError("there is more after the array")
        except (ValueError, RecursionError) as error:
            why = "it is nested too deep" if isinstance(error, RecursionError) else f"{error}"
            where = f"the array breaks at item {self._count + 1}"
            raise MessageRefused("not_json", f"the body is not JSON: {where}: {why}", (str(self._count),)) from error

    def _values(self) -> Iterator[tuple[Any, str]]:
        while True:
            yield self._value()
            self._count += 1
            mark = self._look()
            if mark not in (",", "]"):
                raise ValueError(f"expecting ',' or ']', got {mark!r}" if mark else "it ends in the middle")
            self._skip()
            if mark == "]":
                return

    def _value(self) -> tuple[Any, str]:
        self._look()
        while True:
            try:
                value, end, problem = self._json.value(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_go_on(error):
                    raise ValueError(error.msg) from error
            else:
                # A number that ends near the end of the window may go on.
                if self._ended or self._text[end : end + 1] in _AFTER or end < len(self._text) - _AT_THE_END:
                    self._at = end
                    return value, problem
            if len(self._text) - self._at > MAX_ITEM:
                raise MessageRefused("too_large", _too_large(f"item {self._count + 1}"), (str(self._count),))
            self._read()

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        return error.pos >= len(self._text) - _AT_THE_END or error.msg.startswith("Unterminated string")

    def _look(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._read()

    def _skip(self) -> None:
        self._look()
        self._at += 1

    def _read(self) -> None:
        """More of the file; the more, the longer the item is already, so that a long one is not read over and over."""
        left = self._text[self._at :]
        piece = self._file.read(max(PIECE, len(left)))
        self._text, self._at, self._ended = left + self._decoder.decode(piece, final=not piece), 0, not piece
