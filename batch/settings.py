"""How settings are read from the outside: all problems at once, each with name, value and rule, and a did-you-mean.

A settings class is a frozen dataclass whose fields carry `setting(...)`; `read` fills it from a mapping such as the environment.
Nothing is read at import.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from batch.errors import SettingsError

T = TypeVar("T")
Parse = Callable[[str], Any]


def setting(env: str, parse: Parse, help_text: str, *, default: Any = MISSING) -> Any:
    """A field read from the variable `env`. Without a default it is required. `parse` raises ValueError with the rule."""
    metadata = {"env": env, "parse": parse, "help": help_text}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def whole(minimum: int, maximum: int | None = None) -> Parse:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        rule = f"a whole number, {minimum} or more" if maximum is None else f"a whole number from {minimum} to {maximum}"
        try:
            value = int(text)
        except ValueError:
            raise ValueError(rule) from None
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(rule)
        return value

    return parse


def seconds(minimum: float) -> Parse:
    """A number of seconds."""

    def parse(text: str) -> float:
        rule = f"a number of seconds, {minimum:g} or more"
        try:
            value = float(text)
        except ValueError:
            raise ValueError(rule) from None
        if not minimum <= value < float("inf"):
            raise ValueError(rule)
        return value

    return parse


def text(value: str) -> str:
    """A text that is not blank."""
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def matching(pattern: str, rule: str) -> Parse:
    """A text that matches the whole of `pattern`."""
    compiled = re.compile(pattern)

    def parse(value: str) -> str:
        if not compiled.fullmatch(value.strip()):
            raise ValueError(rule)
        return value.strip()

    return parse


def names(value: str) -> tuple[str, ...]:
    """Names separated by commas, at least one."""
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if not parts:
        raise ValueError("one or more names, separated by commas")
    return parts


def read(kind: type[T], environment: Mapping[str, str]) -> T:
    """The settings in `environment`. Raises SettingsError with one line for each problem, in the order of the fields."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    known = [_env(one) for one in fields(kind)]  # type: ignore[arg-type]
    for one in fields(kind):  # type: ignore[arg-type]
        given = environment.get(_env(one))
        if given is None or (given == "" and one.default is not MISSING):
            if one.default is MISSING:
                problems.append(f"{_env(one)} is not set: {one.metadata['help']}{_near(_env(one), environment, known)}")
            continue
        try:
            values[one.name] = one.metadata["parse"](given)
        except ValueError as error:
            problems.append(f"{_env(one)}={given[:200]!r}: {error}")
    if problems:
        raise SettingsError(problems)
    return kind(**values)


def _env(one: Field[Any]) -> str:
    return str(one.metadata["env"])


def _near(env: str, environment: Mapping[str, str], known: list[str]) -> str:
    others = [name for name in environment if name not in known]
    near = difflib.get_close_matches(env, others, n=1, cutoff=0.85)
    return f" ({near[0]} is set; did you mean {env}?)" if near else ""
