"""A decision in plain lines, as a person would argue it: reading, ledger, formula, caps, result. Every number can be checked by hand."""

from __future__ import annotations

from controller.backlog import Idle, Reading, Unknown, Value
from controller.decision import Decision, Kind
from controller.durations import spoken
from controller.ledger import Ledger, Line
from controller.tick import Round, TickResult
from controller.wording import counted

VERDICTS = {Kind.LAUNCH: "launch", Kind.NOTHING_TO_DO: "nothing to do", Kind.HOLD: "on hold"}


def explained(result: TickResult) -> list[str]:
    """The lines of one lane."""
    decision = result.decision
    lines = [f"lane {decision.lane}: {VERDICTS[decision.kind]}: {decision.reason}"]
    lines += [f"  {line}" for line in (_reading(decision.reading, decision.decided_at), *_ledger(decision.ledger), *_sizing(decision))]
    lines += [f"  {line}" for line in (*_outcome(result), *(f"note: {note}" for note in result.notes))]
    return lines


def explained_round(outcome: Round) -> list[str]:
    """The lines of all lanes, and of the jobs that could not be lanes."""
    lines = [line for result in outcome.results for line in explained(result)]
    for refused in outcome.refused:
        lines += [f"job {refused.job}: not a lane until its annotations are right", *(f"  {problem}" for problem in refused.problems)]
    return lines


def _reading(reading: Reading, now: float) -> str:
    match reading:
        case Value():
            oldest = "" if reading.oldest_age_s is None else f", the oldest {spoken(reading.oldest_age_s)} old"
            return f"reading: {reading.undelivered_count} undelivered{oldest}, sampled {spoken(max(0.0, now - reading.sampled_at))} ago"
        case Idle():
            return "reading: idle (the gauge has no series; that does not prove an empty subscription)"
        case Unknown():
            return f"reading: unknown ({reading.reason})"


def _ledger(ledger: Ledger | None) -> list[str]:
    if ledger is None:
        return []
    if not ledger.lines:
        return ["ledger: nothing of it was assigned at that time"]
    return [f"ledger: {ledger.total_count} of it assigned already", *(f"  {_ledger_line(line)}" for line in ledger.lines)]


def _ledger_line(line: Line) -> str:
    workers = counted(line.worker_count, "worker")
    state = f"{line.live_worker_count} of {workers} alive" if line.live else f"ended, {workers}"
    parts = [f"{line.assigned_count} by its workers"]
    parts += [f"{line.deferred_count} deferred"] if line.deferred_count else []
    parts += [f"{line.held_count} in hands of killed workers"] if line.held_count else []
    return f"{line.execution} ({line.note or state}): {', '.join(parts)}"


def _sizing(decision: Decision) -> list[str]:
    if decision.kind is not Kind.LAUNCH:
        return []
    lines = [f"workers: {decision.formula}"]
    lines += [f"cap {cap.name} {cap.limit}: {cap.before} -> {cap.after}" for cap in decision.caps]
    if decision.predicted_drain_s is None or decision.predicted_cost_usd is None:
        return [*lines, "prediction: none yet, no worker of this lane has told how long a message takes"]
    return [*lines, f"prediction: {spoken(decision.predicted_drain_s)} of work a worker, ${decision.predicted_cost_usd:.4f} at list price"]


def _outcome(result: TickResult) -> list[str]:
    if result.dry_run and result.decision.kind is Kind.LAUNCH:
        return ["dry run: nothing was launched"]
    if result.stood_down:
        return ["stood down: another controller decided for this lane at the same time"]
    return [*(f"launched {name}" for name in result.launched), *(f"not launched: {failure}" for failure in result.failures)]
