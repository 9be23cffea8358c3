"""What the options of a simulation say, from text to values. Pure; each function raises ValueError with the rule."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from math import isfinite
from typing import TypeVar

from batch.model.errors import SettingsError
from controller.lanes.annotations import ANNOTATIONS, SCHEDULE
from controller.observe.jobs import LANE_PREFIX
from controller.simulation.given.delays import START_UPS, Lag, StartUp
from controller.simulation.given.durations import Durations, Fixed, HeavyTail, LogNormal
from controller.simulation.given.patterns import PATTERNS
from controller.simulation.rivals import RIVALS, Rival

T = TypeVar("T")
ALL, NONE = "all", "none"
LONGEST_DELAY_S = 24 * 3600.0
LONGEST_MESSAGE_S = 7 * 86_400.0
WIDEST = 3.0
"""The largest standard deviation of a logarithm: one message in six takes then more than twenty times the median."""
_MESSAGES = "seconds such as 1.5, or lognormal:MEDIAN:SIGMA, or tail:MEDIAN:SHARE:TAIL"
_CHANGED = [name.removeprefix(LANE_PREFIX) for name, rule in ANNOTATIONS.items() if not rule.required and not name.startswith(SCHEDULE)]


def given(option: str, text: str, parse: Callable[[str], T]) -> T:
    """What `parse` makes of an option's text. Raises SettingsError that names the option."""
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError([f"{option} {text[:200]!r}: {error}"]) from error


def patterns_of(text: str) -> tuple[str, ...]:
    """Names of patterns."""
    return tuple(PATTERNS) if text == ALL else (_known(text, [*PATTERNS, ALL]),)


def percent_of(text: str) -> float:
    """`99.5`."""
    return _number(text, 100.0, "a percentage above 0, at most 100")


def lag_of(text: str) -> Lag:
    """`120`, or `60-180`."""
    low_s, high_s = _span(text)
    return Lag((low_s + high_s) / 2, (high_s - low_s) / 2)


def start_up_of(text: str) -> StartUp:
    """A name, `8` or `4-12`."""
    if text[:1].isalpha():
        return START_UPS[_known(text, [*START_UPS])]
    return StartUp(*_span(text))


def durations_of(text: str) -> Durations:
    """Seconds of a thread for a message."""
    kind, *parts = text.split(":")
    if kind == "lognormal" and len(parts) == 2:
        return LogNormal(
            _number(parts[0], LONGEST_MESSAGE_S, _MESSAGES), _number(parts[1], WIDEST, f"SIGMA is above 0 and at most {WIDEST:g}")
        )
    if kind == "tail" and len(parts) == 3:
        median_s, tail_s = (_number(part, LONGEST_MESSAGE_S, _MESSAGES) for part in (parts[0], parts[2]))
        return HeavyTail(median_s, _number(parts[1], 1.0, "SHARE is above 0 and at most 1"), tail_s)
    if parts:
        raise ValueError(_MESSAGES)
    return Fixed(_number(kind, LONGEST_MESSAGE_S, _MESSAGES))


def changes_of(text: str) -> dict[str, str]:
    """Annotations by their full names, from `drain-within=5m,max-workers=50`."""
    found: dict[str, str] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = (one.strip() for one in part.partition("="))
        if not equals:
            raise ValueError(f"{part!r} is not NAME=VALUE, such as drain-within=5m")
        key = f"{LANE_PREFIX}{_known(name.removeprefix(LANE_PREFIX), _CHANGED)}"
        try:
            ANNOTATIONS[key].parse(value)
        except ValueError as error:
            raise ValueError(f"{name}={value[:200]!r}: {error}") from error
        if key in found:
            raise ValueError(f"{name} is there twice")
        found[key] = value
    if not found:
        raise ValueError("NAME=VALUE, such as drain-within=5m")
    return found


def rivals_of(text: str) -> Mapping[str, Sequence[Rival]]:
    """Rivals by their kinds. A kind stands for all its settings; one setting is named in full."""
    kinds: dict[str, list[Rival]] = {}
    for rival in RIVALS.values():
        kinds.setdefault(rival.kind, []).append(rival)
    if text in (ALL, NONE):
        return kinds if text == ALL else {}
    found: dict[str, list[Rival]] = {}
    for name in filter(None, (one.strip() for one in text.split(","))):
        if name in RIVALS:
            found.setdefault(RIVALS[name].kind, []).append(RIVALS[name])
        else:
            kind = _known(name, [*kinds, ALL, NONE])
            found[kind] = kinds[kind]
    return found


def said(durations: Durations) -> str:
    """As the option says it."""
    if isinstance(durations, LogNormal):
        return f"lognormal:{durations.median_s:g}:{durations.sigma:g}"
    if isinstance(durations, HeavyTail):
        return f"tail:{durations.median_s:g}:{durations.tail_share:g}:{durations.tail_s:g}"
    return f"{durations.mean(0.0):g}"


def _known(name: str, names: Collection[str]) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    raise ValueError(f"{name!r} is not known; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"))


def _span(text: str) -> tuple[float, float]:
    rule = f"seconds such as 120, or from and to such as 60-180, at most {LONGEST_DELAY_S:.0f}"
    low, dash, high = text.partition("-")
    low_s = _number(low, LONGEST_DELAY_S, rule, least=0.0)
    high_s = _number(high, LONGEST_DELAY_S, rule, least=0.0) if dash else low_s
    if high_s < low_s:
        raise ValueError(rule)
    return low_s, high_s


def _number(text: str, most: float, rule: str, least: float = 1e-6) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and least <= value <= most):
        raise ValueError(rule)
    return value
