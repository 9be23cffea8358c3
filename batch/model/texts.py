"""The one function through which every text goes that comes from a user's code or message: reason, traceback, name, note, log line.

A handler may raise, log or return any text: with half a surrogate pair (as JSON's `"\\ud83d"` arrives), with NULs, of any length, or of a
class whose `__str__` raises. What this module gives is a plain `str` that can be encoded and stored anywhere, so that what writes it later
need not ask again.
"""

from __future__ import annotations

import re
import traceback

MAX_TEXT_CHARS = 8000
_NOT_SHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that steer a terminal, reorder or break a line, or are no characters."""
_JOINERS = frozenset({"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))})
"""Of these, what stands inside words and emoji."""
_HALF = re.compile("[\ud800-\udfff]")
_traceback = BaseException.__dict__["__traceback__"]
"""Read so, it runs no code of the error's class."""
_HEADER = "Traceback (most recent call last):\n"


def plain(value: object, max_chars: int = MAX_TEXT_CHARS) -> str:
    """The text of any value, at most `max_chars` long: half a surrogate pair and NUL become visible escapes. Never raises."""
    text = value if type(value) is str else _said(value)
    return _whole(text[:max_chars])[:max_chars]


def _said(value: object) -> str:
    """As `str` says it; exactly a `str`, also where user code made a class of its own."""
    try:
        return str.__str__(str(value))
    except BaseException:  # noqa: BLE001 - `__str__` is user code: it may raise anything, and what it describes must not be lost with it
        return str.__str__(value) if isinstance(value, str) else f"{_named(value)}, whose text cannot be had"


def _named(value: object) -> str:
    name = class_name(value)
    return name if isinstance(value, BaseException) else f"a {name}"


def _whole(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", r"\x00")
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def class_name(value: object, max_chars: int = 200) -> str:
    """The name of a value's class, whatever a metaclass says it is."""
    return plain(type.__dict__["__name__"].__get__(type(value)), max_chars)


def traceback_text(error: BaseException, max_chars: int) -> str:
    """As Python prints it. A long one keeps its end, where the cause stands, under the line by which a traceback is recognised."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - an error whose text cannot be had has no printable traceback either
        text = "".join(traceback.format_tb(_traceback.__get__(error)))
    if len(text) > max_chars:
        text = _HEADER + text[len(_HEADER) - max_chars :]
    return plain(text, max_chars)


def is_traceback(text: str) -> bool:
    """Whether it is one of `traceback_text`: what else stands in its place is the output of a process that died, or a stack."""
    return text.startswith((_HEADER, "  + Exception Group Traceback"))


def is_shown(char: str) -> bool:
    """Whether a person sees the character as it is: it does not steer a terminal, reorder or break a line, and is no half of one."""
    import unicodedata  # a worker starts without it

    return unicodedata.category(char) not in _NOT_SHOWN or char in _JOINERS


def printable(text: str) -> str:
    """The text with everything escaped, as in a Python literal, that would not be seen as it is: escape sequences, line ends, marks that
    turn the direction of writing, halves of characters."""
    return text if text.isprintable() else "".join(one if is_shown(one) else one.encode("unicode_escape").decode() for one in text)


def json_bytes(text: str) -> bytes:
    """A JSON text in UTF-8. Half a surrogate pair in it becomes a visible escape: a reader of other languages would refuse the whole."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _HALF.sub(lambda half: rf"\\u{ord(half[0]):04x}", text).encode()
