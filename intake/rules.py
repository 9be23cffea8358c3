"""Rules of access as they are set: who may do what in which lanes, and the API keys by their digests. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from enum import StrEnum

from batch.serving.oidc import is_email

ALL = "*"
KEY = "key:"
"""What the name of an API key begins with in the rules, so that it is no email."""
MIN_KEY_CHARS = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY = re.compile(rf"[!-~]{{{MIN_KEY_CHARS},512}}")


class Verb(StrEnum):
    """What a caller wants to do. Reading shows payloads and tracebacks."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    RETRY = "retry"


_RIGHT = re.compile(rf"({'|'.join(Verb)}|\*):(\*|{_NAME.pattern})")
Rules = tuple[tuple[str, frozenset[str]], ...]
"""What each caller may do, as `verb:lane`; either may be `*`."""
Keys = tuple[tuple[str, bytes], ...]
"""Names and digests of API keys; several for one name while a key is replaced."""


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode(errors="replace")).digest()


def rules_of(value: str) -> Rules:
    """From JSON. Raises ValueError with every problem."""
    example = 'an object such as {"team@project.iam.gserviceaccount.com": ["submit:default", "read:*"], "key:ci": ["*:bulk"]}'
    try:
        given = json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"not JSON: {example}") from None
    if not isinstance(given, dict) or not given:
        raise ValueError(example)
    problems: list[str] = []
    for caller, rights in given.items():
        if not (_NAME.fullmatch(caller.removeprefix(KEY)) if caller.startswith(KEY) else is_email(caller)):
            problems.append(f"{caller[:100]!r} is neither an email nor {KEY}NAME")
        if not isinstance(rights, list) or not rights:
            problems.append(f'{caller[:100]!r} must have a list of rights, such as ["submit:default"]')
            continue
        wrong = [one for one in rights if not isinstance(one, str) or not _RIGHT.fullmatch(one)]
        problems += [f"{caller[:100]!r}: {one!r:.100} is not verb:lane, with a verb of {', '.join(Verb)}, {ALL}" for one in wrong]
    if problems:
        raise ValueError("; ".join(problems))
    return tuple((caller.lower() if "@" in caller else caller, frozenset(rights)) for caller, rights in given.items())


def keys_of(value: str) -> Keys:
    """From lines `name key`. Raises ValueError with every problem, and without any key."""
    lines = [(number, line.split()) for number, line in enumerate(value.splitlines(), 1) if line.strip()]
    wrong = [
        f"line {number} must be a name and a key of {MIN_KEY_CHARS} to 512 visible characters, with a space between them"
        for number, parts in lines
        if len(parts) != 2 or not _NAME.fullmatch(parts[0]) or not _KEY.fullmatch(parts[1])
    ]
    if wrong or not lines:
        raise ValueError("; ".join(wrong) or "lines of a name and a key")
    keys = tuple((name, digest(key)) for _, (name, key) in lines)
    if len({key for _, key in keys}) < len(keys):
        raise ValueError("one key stands in two lines: each has a key of its own")
    return keys


def may(rights: Collection[str], verb: Verb, lane: str) -> bool:
    """Whether one of the rights allows it."""
    return any(f"{one}:{other}" in rights for one in (verb, ALL) for other in (lane, ALL))


def problems_of(rules: Rules, keys: Keys, audience: str, lanes: Collection[str]) -> list[str]:
    """What does not go together."""
    named, known = {caller.removeprefix(KEY) for caller, _ in rules if caller.startswith(KEY)}, {name for name, _ in keys}
    emails = [caller for caller, _ in rules if "@" in caller]
    asked = {right.partition(":")[2] for _, rights in rules for right in rights} - {ALL, *lanes}
    checks: Mapping[str, bool] = {
        f"ACCESS names {', '.join(sorted(asked))}: no such lane; there are {', '.join(lanes)}": bool(asked),
        f"ACCESS names {KEY}{f', {KEY}'.join(sorted(named - known))}, which API_KEYS does not have": bool(named - known),
        f"API_KEYS has {', '.join(sorted(known - named))}, which ACCESS gives no rights": bool(known - named),
        "OIDC_AUDIENCE is not set, but ACCESS names emails: set it to the audience of the callers' tokens": bool(emails and not audience),
        "OIDC_AUDIENCE is set, but ACCESS names no email: name who may do what, or leave OIDC_AUDIENCE out": bool(audience and not emails),
    }
    return [problem for problem, holds in checks.items() if holds]
