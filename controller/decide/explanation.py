"""A decision in plain lines, as a person would argue it: reading, ledger, what is left, formula, caps, result.

Every number can be checked by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from batch.prices import LIST_PERCENT
from controller.decide.decision import Cap, Decision, Kind
from controller.decide.ledger import GUARD_S, Entry, Ledger
from controller.decide.sizing import Rates
from controller.model.reading import Idle, Reading, Unknown, Value
from controller.model.wording import brief, counted, spoken

VERDICTS = {Kind.LAUNCH: "launch", Kind.NOTHING_TO_DO: "nothing to do", Kind.HOLD: "on hold"}


def explained_decision(decision: Decision, delayed: Sequence[str] = ()) -> list[str]:
    """The lines of a decision, its verdict first. `delayed`: lines about delayed tasks that were published again, which a lane's history
    does not keep."""
    facts = [_reading(decision.reading, decision.decided_at), *delayed, *_accepted(decision), *_ledger(decision.ledger)]
    facts += [*_unassigned(decision), *_sizing(decision), *_prediction(decision)]
    verdict = VERDICTS[decision.kind] if decision.waits_until is None else "waiting"
    return [f"lane {decision.lane}: {verdict}: {decision.reason}", *(f"  {line}" for line in facts)]


def _reading(reading: Reading, now: float) -> str:
    match reading:
        case Value():
            since_s = max(0.0, now - reading.sampled_at)
            age_s = reading.oldest_age_s if reading.undelivered_count else None
            oldest = "" if age_s is None else f", the oldest {spoken(age_s + since_s)} old by now"
            return f"reading: {reading.undelivered_count} undelivered{oldest}, sampled {spoken(since_s)} ago"
        case Idle():
            return "reading: idle (the gauge has no series; that does not prove an empty subscription)"
        case Unknown():
            return f"reading: unknown ({reading.reason})"


def _accepted(decision: Decision) -> list[str]:
    count = decision.accepted_count
    since = "since the sample" if isinstance(decision.reading, Value) else "lately"
    return [f"accepted: {counted(count, 'message')} published {since}, which the gauge does not show yet"] if count else []


def _ledger(ledger: Ledger | None) -> list[str]:
    if ledger is None:
        return []
    if not ledger.entries:
        return ["ledger: nothing of it was assigned at that time"]
    count = ledger.guard_count
    why = f", {count} of it perhaps: the gauge may count what was acknowledged in the {GUARD_S:.0f} s before the sample"
    return [
        f"ledger: {ledger.total_count} of it assigned already{why if count else ''}",
        *(f"  {_entry(entry, is_doubtful=count > 0)}" for entry in ledger.entries),
    ]


def _entry(entry: Entry, *, is_doubtful: bool) -> str:
    workers = counted(entry.worker_count, "worker")
    yet = f", {entry.pending_worker_count} yet to start" if entry.pending_worker_count else ""
    state = f"{entry.live_worker_count} of {workers} alive{yet}" if entry.live else f"ended, {workers}"
    parts = [f"{entry.assigned_count} by its workers"]
    parts += [f"{entry.deferred_count} deferred"] if entry.deferred_count else []
    parts += [f"{entry.outstanding_count} outstanding at killed workers"] if entry.outstanding_count else []
    parts += [f"{entry.recent_count} acknowledged just before the sample"] if entry.recent_count and is_doubtful else []
    return f"{entry.execution} ({entry.note or state}): {', '.join(parts)}"


def _unassigned(decision: Decision) -> list[str]:
    if decision.ledger is None or decision.probe:
        return []
    read_count = decision.reading.undelivered_count if isinstance(decision.reading, Value) else 0
    accepted = f" + {decision.accepted_count} accepted" if decision.accepted_count else ""
    assigned = f" - {decision.ledger.total_count} assigned" if decision.ledger.total_count else ""
    below = " (below 0 counts as 0)" if read_count + decision.accepted_count < decision.ledger.total_count else ""
    return [f"unassigned: {read_count}{accepted}{assigned} = {decision.unassigned_count}{below}"] if accepted or assigned else []


def _sizing(decision: Decision) -> list[str]:
    if not decision.formula:
        return []
    rates = decision.rates
    lines = []
    if rates is not None:
        tail = f", {brief(rates.idle_tail_s)} from the last to its end" if rates.idle_tail_s else ""
        tail += f", {brief(rates.uneven_s)} in which its threads end apart" if rates.uneven_s else ""
        basis = f" ({rates.basis})" if rates.basis else ""
        lines.append(
            f"learned: {brief(rates.message_s)} a message in a thread, {brief(rates.start_up_s)} until a worker pulls{tail}{basis}"
        )
    if decision.waits_until is not None:
        return [*lines, f"waiting: {decision.formula}", f"now: `fanout tick --now {decision.lane}` launches without waiting"]
    strategy = f"{decision.strategy}: " if decision.strategy else ""
    lines.append(f"workers: {strategy}{decision.formula}")
    return lines + [f"  {_cap(cap)}" for cap in decision.caps]


def _cap(cap: Cap) -> str:
    why = f" ({cap.why})" if cap.why else ""
    result = f"{cap.before} -> {cap.after}" if cap.before != cap.after else f"stays {cap.after}"
    return f"{cap.name}: at {'most' if cap.lowers else 'least'} {cap.limit}{why}: {result}"


def _prediction(decision: Decision) -> list[str]:
    if decision.kind is not Kind.LAUNCH:
        return []
    start = f"their start, up to {spoken(decision.starts_within_s)} after the launch" if decision.starts_within_s else ""
    if decision.predicted_drain_s is None or decision.predicted_cost_usd is None:
        none = "prediction: none yet, no worker of this lane has shown how long a message takes"
        return [f"{none}; it counts from {start}" if start else none, *_actual(decision)]
    drain_s, late = decision.predicted_drain_s, _late(decision, decision.predicted_drain_s)
    begin = start or "the launch"
    done = f"these {decision.backlog} are done {spoken(drain_s)} after {begin}{_in_numbers(decision.rates, drain_s)}"
    return [f"prediction: {done}{late}, for ${decision.predicted_cost_usd:.4f} at {_price(decision)}", *_actual(decision)]


def _price(decision: Decision) -> str:
    return "list price" if decision.price_percent == LIST_PERCENT else f"{decision.price_percent:g} % of list price"


def _late(decision: Decision, drain_s: float) -> str:
    """Counted from when the messages came; a decision of before that was kept is late against what was planned."""
    due_in_s = decision.within_s if decision.due_in_s is None else decision.due_in_s
    if due_in_s is None:
        return ""
    if drain_s <= due_in_s:
        return ", in time"
    already = f", already {spoken(-due_in_s)} late" if due_in_s < 0 else ""
    return f"{already}, {spoken(drain_s - due_in_s)} late{' by then' if already else ''}"


def _in_numbers(rates: Rates | None, drain_s: float) -> str:
    if rates is None or rates.message_s <= 0:
        return ""
    rounds = round((drain_s - rates.start_up_s - rates.uneven_s) / rates.message_s)
    start = f"{brief(rates.start_up_s)} + " if rates.start_up_s else ""
    uneven = f" + {brief(rates.uneven_s)}" if rates.uneven_s else ""
    return f" ({start}{rounds} x {brief(rates.message_s)} in a thread{uneven})"


def _actual(decision: Decision) -> list[str]:
    """What became of the launch, as a later tick found it."""
    cost = "" if decision.actual_cost_usd is None else f", for ${decision.actual_cost_usd:.4f}"
    if decision.actual_failure:
        return [f"happened: {decision.actual_failure}{cost}; `fanout executions {decision.lane}` shows which"]
    if decision.actual_drain_s is None:
        return []
    error = decision.drain_error_percent
    against = "" if error is None else f", {abs(error):.0f} % {'longer' if error > 0 else 'less'} than predicted"
    return [f"happened: drained in {spoken(decision.actual_drain_s)}{against}{cost}"]
