"""The filter language of subscriptions: parsed into a tree, and applied to the attributes of a message.

The rule: a text either means exactly one tree or is refused with the position of the first thing wrong; nothing is guessed.
The language: https://cloud.google.com/pubsub/docs/subscription-message-filter#filtering_syntax
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

MAX_BYTES = 256
# Far beyond what a person writes, far below what would exhaust the interpreter's stack.
MAX_DEPTH = 60

_BARE_KEY = re.compile(r"[A-Za-z0-9_\-]+")
_WORD = re.compile(r"[A-Za-z]+(?![A-Za-z0-9_\-])")
_SPACE = re.compile(r"\s*")
_CODE = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})")
_OCTAL = re.compile(r"[0-3][0-7]{2}")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'", "?": "?", "`": "`"}


class FilterError(ValueError):
    """A text that is no filter. `position` counts characters from 1."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(f"at position {position}: {problem}")
        self.position = position


@dataclass(frozen=True)
class Has:
    """`attributes:key`: there is such an attribute, with any value."""

    key: str


@dataclass(frozen=True)
class Equals:
    """`attributes.key = "value"`."""

    key: str
    value: str


@dataclass(frozen=True)
class HasPrefix:
    """`hasPrefix(attributes.key, "prefix")`."""

    key: str
    prefix: str


@dataclass(frozen=True)
class Not:
    """`NOT term` or `-term`; `attributes.key != "value"` too, which is also true without such an attribute."""

    term: Filter


@dataclass(frozen=True)
class AllOf:
    """`term AND term ...`: two or more."""

    terms: tuple[Filter, ...]


@dataclass(frozen=True)
class AnyOf:
    """`term OR term ...`: two or more."""

    terms: tuple[Filter, ...]


Filter: TypeAlias = Has | Equals | HasPrefix | Not | AllOf | AnyOf


def matches(node: Filter, attributes: Mapping[str, str]) -> bool:
    """Whether a message with these attributes belongs to the subscription."""
    match node:
        case Has(key):
            return key in attributes
        case Equals(key, value):
            # Not `get`: attributes may be a protobuf map, and an absent key must not equal an empty value.
            return key in attributes and attributes[key] == value
        case HasPrefix(key, prefix):
            return key in attributes and attributes[key].startswith(prefix)
        case Not(term):
            return not matches(term, attributes)
        case AllOf(terms):
            return all(matches(term, attributes) for term in terms)
        case AnyOf(terms):
            return any(matches(term, attributes) for term in terms)


def parse(text: str) -> Filter:
    """The tree of a filter. Raises FilterError."""
    size = len(text.encode())
    if size > MAX_BYTES:
        raise FilterError(1, f"the filter has {size} bytes, the maximum is {MAX_BYTES}")
    parser = _Parser(text)
    node = parser.expression()
    parser.end()
    return node


class _Parser:
    """Reads from left to right; `_at` is the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def expression(self) -> Filter:
        """Terms joined by one kind of operator; both kinds beside each other would leave open what binds first."""
        terms = [self._term()]
        joined = ""
        while (word := self._peek_word()) in ("AND", "OR"):
            if joined and word != joined:
                raise self._error("AND and OR stand beside each other: put one of them into parentheses")
            joined = word
            self._at += len(word)
            terms.append(self._term())
        if not joined:
            return terms[0]
        return AllOf(tuple(terms)) if joined == "AND" else AnyOf(tuple(terms))

    def end(self) -> None:
        self._skip()
        if self._at < len(self._text):
            raise self._error("expected AND, OR or the end of the filter")

    def _term(self) -> Filter:
        negations = 0
        while True:
            if self._peek_word() == "NOT":
                self._at += len("NOT")
            elif not self._take("-"):
                break
            negations += 1
        node = self._atom()
        if negations > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} negations")
        for _ in range(negations):
            node = Not(node)
        return node

    def _atom(self) -> Filter:
        if self._take("("):
            return self._group()
        word = self._peek_word()
        if word == "hasPrefix":
            self._at += len(word)
            return self._prefix()
        self._attributes()
        if self._take(":"):
            return Has(self._attribute_key())
        self._expect(".", "expected `:` or `.` and a key after `attributes`")
        key = self._attribute_key()
        if self._take("!="):
            return Not(Equals(key, self._string()))
        self._expect("=", "expected `=` or `!=`")
        return Equals(key, self._string())

    def _group(self) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} nested parentheses")
        node = self.expression()
        self._depth -= 1
        self._expect(")", "expected AND, OR or `)`")
        return node

    def _prefix(self) -> Filter:
        self._expect("(", "expected `(` after `hasPrefix`")
        self._attributes()
        self._expect(".", "expected `.` and a key after `attributes`")
        key = self._attribute_key()
        self._expect(",", "expected `,` and the prefix as a quoted text")
        prefix = self._string()
        self._expect(")", "expected `)`")
        return HasPrefix(key, prefix)

    def _attributes(self) -> None:
        if self._peek_word() != "attributes":
            raise self._error("expected `attributes`, `hasPrefix`, `NOT`, `-` or `(`")
        self._at += len("attributes")

    def _attribute_key(self) -> str:
        self._skip()
        if self._text.startswith('"', self._at):
            return self._string()
        found = _BARE_KEY.match(self._text, self._at)
        if found is None:
            raise self._error("expected a key: letters, digits, `-` and `_`, or a quoted text")
        self._at = found.end()
        return found[0]

    def _string(self) -> str:
        self._expect('"', "expected a text in double quotes")
        parts: list[str] = []
        while not self._text.startswith('"', self._at):
            if self._at >= len(self._text):
                raise self._error("the quoted text has no end")
            parts.append(self._escaped() if self._text[self._at] == "\\" else self._plain())
        self._at += 1
        return "".join(parts)

    def _plain(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _escaped(self) -> str:
        simple = _ESCAPES.get(self._text[self._at + 1 : self._at + 2])
        if simple is not None:
            self._at += 2
            return simple
        found = _CODE.match(self._text, self._at + 1)
        octal = None if found else _OCTAL.match(self._text, self._at + 1)
        if found:
            code, end = int(next(group for group in found.groups() if group), 16), found.end()
        elif octal:
            code, end = int(octal[0], 8), octal.end()
        else:
            raise self._error('unknown escape; known are \\\\ \\" \\n \\t and the like, \\x41, \\101, \\u0041 and \\U00000041')
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise self._error("the escape is no character of Unicode")
        self._at = end
        return chr(code)

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _peek_word(self) -> str:
        self._skip()
        found = _WORD.match(self._text, self._at)
        return found[0] if found else ""

    def _take(self, symbol: str) -> bool:
        self._skip()
        if not self._text.startswith(symbol, self._at):
            return False
        self._at += len(symbol)
        return True

    def _expect(self, symbol: str, problem: str) -> None:
        if not self._take(symbol):
            raise self._error(problem)

    def _error(self, problem: str) -> FilterError:
        return FilterError(self._at + 1, problem)
