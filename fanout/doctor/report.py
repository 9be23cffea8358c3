"""What doctor prints: what is wrong with why and how to mend it, what could not be checked, and how much is fine."""

from __future__ import annotations

from collections.abc import Sequence

from controller.model.wording import are, counted
from fanout.doctor.finding import BAD, Finding, Verdict
from fanout.output import one_line

_MARKS = {Verdict.WRONG: "WRONG", Verdict.UNREADABLE: "UNREADABLE", Verdict.ADVICE: "advice"}
_ORDER = (Verdict.WRONG, Verdict.UNREADABLE, Verdict.ADVICE, Verdict.NOT_CHECKED, Verdict.FINE)


def report(findings: Sequence[Finding], *, show_fine: bool) -> list[str]:
    """Lines, in the order of how much they matter."""
    lines: list[str] = []
    for verdict in _ORDER:
        found = [one for one in findings if one.verdict is verdict]
        if verdict is Verdict.NOT_CHECKED:
            lines += _not_checked(found)
        elif verdict is not Verdict.FINE or show_fine:
            lines += [line for one in found for line in _finding(one)]
    return [*lines, summary(findings)]


def _not_checked(findings: Sequence[Finding]) -> list[str]:
    """One line for all that was not checked for the same reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        groups.setdefault((one.check, one.what), []).append(one.about)
    return [f"not checked: {check} of {', '.join(abouts)}: {one_line(what)}" for (check, what), abouts in groups.items()]


def _finding(one: Finding) -> list[str]:
    lines = [f"{_MARKS.get(one.verdict, 'fine')}: {one.about}: {one.check}: {one_line(one.what)}"]
    if one.why:
        lines.append(f"  why it matters: {one_line(one.why)}")
    if one.command:
        lines.append(f"  to mend it: {one.command}" + (" (or --fix)" if one.mend is not None else ""))
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
    return not any(one.verdict in BAD for one in findings)
