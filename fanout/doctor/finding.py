"""A finding: what was looked at, whether it is as it should be, why that matters, and what mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fanout.doctor.hands import Hands

Mend = Callable[[Hands], None]


class Verdict(StrEnum):
    """`not_checked` is what a service does not have, as the local cloud; `unreadable` what it should have told and did not."""

    FINE = "fine"
    ADVICE = "advice"
    WRONG = "wrong"
    NOT_CHECKED = "not_checked"
    UNREADABLE = "unreadable"


BAD = (Verdict.WRONG, Verdict.UNREADABLE)


@dataclass(frozen=True, slots=True)
class Finding:
    """`about` is the thing (`subscription default`), `check` a word that stays the same between versions. `command` is what a person
    would type; `mend` does the same, and is there only where it takes nothing away that somebody may want."""

    about: str
    check: str
    verdict: Verdict
    what: str
    why: str = ""
    command: str = ""
    mend: Mend | None = None

    def json(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "check": self.check,
            "verdict": self.verdict.value,
            "what": self.what,
            "why": self.why or None,
            "command": self.command or None,
            "fixable": self.mend is not None,
        }


def fine(about: str, check: str, what: str) -> Finding:
    return Finding(about, check, Verdict.FINE, what)
