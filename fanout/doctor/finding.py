"""A finding: what was checked, whether it is as it should be, why that matters, and what fixes it; and the report of all findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controller.model.wording import are
from fanout.doctor.services import Fixer
from fanout.output import counted, one_line, some_of

Fix = Callable[[Fixer], None]


class Verdict(StrEnum):
    """In the order of how much they matter. `not_checked`: the service cannot tell, such as permissions on the local cloud. `unreadable`:
    it should have told, and did not."""

    WRONG = "wrong"
    UNREADABLE = "unreadable"
    ADVICE = "advice"
    NOT_CHECKED = "not_checked"
    FINE = "fine"

    @property
    def bad(self) -> bool:
        return self in (Verdict.WRONG, Verdict.UNREADABLE)


@dataclass(frozen=True, slots=True)
class Finding:
    """`about` is the thing (`subscription default`), `check` a word that stays the same between versions. `command` is what a person
    would type; `fix` does the same, and is there only where it takes nothing away that somebody may want."""

    about: str
    check: str
    verdict: Verdict
    what: str
    why: str = ""
    command: str = ""
    fix: Fix | None = None

    def json(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "check": self.check,
            "verdict": self.verdict.value,
            "what": self.what,
            "why": self.why or None,
            "command": self.command or None,
            "fixable": self.fix is not None,
        }


def fine(about: str, check: str, what: str) -> Finding:
    return Finding(about, check, Verdict.FINE, what)


def judged(
    right: bool,
    about: str,
    check: str,
    good: str,
    what: str,
    why: str,
    command: str,
    fix: Fix | None = None,
    *,
    verdict: Verdict = Verdict.WRONG,
) -> Finding:
    """Fine, as `good` says, if it is `right`; else `what` is wrong with it."""
    return fine(about, check, good) if right else Finding(about, check, verdict, what, why, command, fix)


def report(findings: Sequence[Finding], *, show_fine: bool) -> list[str]:
    """Lines, in the order of how much they matter."""
    lines: list[str] = []
    for verdict in Verdict:
        found = [one for one in findings if one.verdict is verdict]
        if verdict is Verdict.NOT_CHECKED:
            lines += _not_checked(found)
        elif verdict is not Verdict.FINE or show_fine:
            lines += [line for one in found for line in _finding(one)]
    return [*lines, summary(findings)]


def _not_checked(findings: Sequence[Finding]) -> list[str]:
    """One line for all that was not checked for the same reason."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for one in findings:
        groups.setdefault((one.check, one.what), {})[one.about] = None
    return [f"not checked: {check} of {some_of(list(abouts))}: {one_line(what)}" for (check, what), abouts in groups.items()]


def _finding(one: Finding) -> list[str]:
    lines = [f"{one.verdict.upper() if one.verdict.bad else one.verdict}: {one.about}: {one.check}: {one_line(one.what)}"]
    if one.why:
        lines.append(f"  why it matters: {one_line(one.why)}")
    if one.command:
        lines.append(f"  to fix it: {one.command}" + (" (or --fix)" if one.fix is not None else ""))
    return lines


def summary(findings: Sequence[Finding]) -> str:
    counts = {verdict: sum(one.verdict is verdict for one in findings) for verdict in Verdict}
    parts = [f"{counts[Verdict.FINE]} of {counted(len(findings), 'check')} {are(counts[Verdict.FINE])} fine"]
    told = {
        Verdict.WRONG: "wrong",
        Verdict.UNREADABLE: "unreadable",
        Verdict.ADVICE: "with advice",
        Verdict.NOT_CHECKED: "not checked, which is not to say fine",
    }
    return ", ".join(parts + [f"{counts[verdict]} {word}" for verdict, word in told.items() if counts[verdict]])


def healthy(findings: Sequence[Finding]) -> bool:
    return not any(one.verdict.bad for one in findings)
