"""One page of a list of objects, as a pure function of the sorted names: prefixes, delimiters, offsets, globs, page tokens.

A page token names where the page ended and nothing else: so an object that exists throughout is listed exactly once,
whatever is written between two pages.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from local_cloud.storage.model.errors import InvalidArgument

PAGE_LIMIT_COUNT = 1000


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Offsets: the start is inclusive, the end exclusive; empty texts: not asked for."""

    prefix: str = ""
    delimiter: str = ""
    start_offset: str = ""
    end_offset: str = ""
    max_results: int | None = None
    page_token: str = ""
    match_glob: str = ""
    include_trailing_delimiter: bool = False


@dataclass(slots=True)
class Page:
    names: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_token: str | None = None


def page_of(names: Sequence[str], query: ListQuery) -> Page:
    """The page of `names`, which are sorted by code point: that is also the order of their UTF-8. Raises InvalidArgument."""
    if query.max_results is not None and query.max_results < 0:
        raise InvalidArgument(f"Invalid value for maxResults: {query.max_results}. Valid are numbers from 0.")
    limit = min(query.max_results or PAGE_LIMIT_COUNT, PAGE_LIMIT_COUNT)
    pattern = glob_pattern(query.match_glob) if query.match_glob else None
    page = Page()
    position = _start(names, query)
    end = _end(names, query)
    while position < end:
        name = names[position]
        folder = _folder_of(name, query)
        if pattern is not None and not pattern.fullmatch(name):
            position += 1
            continue
        if len(page.names) + len(page.prefixes) >= limit:
            page.next_token = _token(page)
            break
        if folder is None:
            page.names.append(name)
            position += 1
            continue
        page.prefixes.append(folder)
        position = _after_prefix(names, folder, position)
        if query.include_trailing_delimiter and name == folder:
            page.names.append(name)
    return page


def _start(names: Sequence[str], query: ListQuery) -> int:
    position = bisect_left(names, max(query.prefix, query.start_offset))
    if not query.page_token:
        return position
    last, is_prefix = _read_token(query.page_token)
    after = _after_prefix(names, last, 0) if is_prefix else bisect_right(names, last)
    return max(position, after)


def _end(names: Sequence[str], query: ListQuery) -> int:
    end = _after_prefix(names, query.prefix, 0) if query.prefix else len(names)
    return min(end, bisect_left(names, query.end_offset)) if query.end_offset else end


def _folder_of(name: str, query: ListQuery) -> str | None:
    if not query.delimiter:
        return None
    found = name.find(query.delimiter, len(query.prefix))
    return None if found < 0 else name[: found + len(query.delimiter)]


def _after_prefix(names: Sequence[str], prefix: str, low: int) -> int:
    """The index of the first name behind all that start with `prefix`."""
    stem = prefix.rstrip(chr(0x10FFFF))
    if not stem:
        return len(names)
    return bisect_left(names, stem[:-1] + chr(ord(stem[-1]) + 1), low)


def _token(page: Page) -> str:
    last_name, last_prefix = page.names[-1:] or [""], page.prefixes[-1:] or [""]
    is_prefix = last_prefix[0] != "" and last_prefix >= last_name
    last = last_prefix[0] if is_prefix else last_name[0]
    return base64.urlsafe_b64encode(json.dumps([last, is_prefix]).encode()).decode()


def _read_token(token: str) -> tuple[str, bool]:
    try:
        last, is_prefix = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidArgument(f"Invalid value for pageToken: '{token}'. Take it from nextPageToken of the page before.") from None
    return str(last), bool(is_prefix)


@lru_cache(maxsize=64)
def glob_pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` does not; `[a-z]`, `[!a]` and `{x,y}` as usual. Raises InvalidArgument."""
    parts: list[str] = []
    position = depth = 0
    while position < len(glob):
        text, position, depth = _glob_part(glob, position, depth)
        parts.append(text)
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:
        raise InvalidArgument(f"Invalid value for matchGlob: '{glob}'. A bracket or brace is not closed.") from None


def _glob_part(glob: str, position: int, depth: int) -> tuple[str, int, int]:
    """The regular expression for what stands at `position`, where it ends, and how many braces are open then."""
    if glob.startswith("**/", position):
        return "(?:.*/)?", position + 3, depth
    if glob.startswith("**", position):
        return ".*", position + 2, depth
    char = glob[position]
    if char == "[" and (close := glob.find("]", position + 2)) > 0:
        inside = glob[position + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
        return f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]", close + 1, depth
    if char == "{":
        return "(?:", position + 1, depth + 1
    if char == "}" and depth:
        return ")", position + 1, depth - 1
    if char == "," and depth:
        return "|", position + 1, depth
    if char == "\\" and position + 1 < len(glob):
        return re.escape(glob[position + 1]), position + 2, depth
    return {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)), position + 1, depth
