"""Results of ticks: of one lane, and of a round of lanes; as JSON, and in plain lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controller.act.endings import Endings
from controller.act.intents import Intent, PartState
from controller.act.republisher import Republished
from controller.decide.decision import Decision, Kind, to_json
from controller.decide.explanation import explained_decision
from controller.lanes.lanes import LaneRefused
from controller.model.wording import are, counted
from controller.tick.health import Health


@dataclass(frozen=True, slots=True)
class TickResult:
    """What one tick decided and did for a lane. `stood_down`: another controller decided for it at the same time, nothing was launched.
    `health` is for monitoring."""

    decision: Decision
    intent: Intent | None = None
    stood_down: bool = False
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    delayed: Republished = field(default_factory=Republished)
    health: Health | None = None

    @property
    def launched(self) -> tuple[str, ...]:
        """Names of the executions that were started."""
        parts = self.intent.parts if self.intent else ()
        return tuple(part.execution for part in parts if part.state is PartState.LAUNCHED)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why parts of the launch did not, or may not, take effect."""
        parts = self.intent.parts if self.intent else ()
        return tuple(f"{part.decision_id}: {part.reason}" for part in parts if part.state is not PartState.LAUNCHED)


@dataclass(frozen=True, slots=True)
class Round:
    """One tick of each lane asked for, the jobs that could not be lanes, and, of all lanes together, the ends of submissions."""

    results: tuple[TickResult, ...]
    refused: tuple[LaneRefused, ...] = ()
    endings: Endings = field(default_factory=Endings)


def result_json(result: TickResult) -> dict[str, Any]:
    """What `fanout tick --json`, the service's answer and the log show of a tick."""
    return {
        "lane": result.decision.lane,
        "decision": to_json(result.decision),
        "launched": list(result.launched),
        "failures": list(result.failures),
        "stood_down": result.stood_down,
        "dry_run": result.dry_run,
        "republished_count": 0 if result.dry_run else result.delayed.count,
        "cancelled_count": result.delayed.cancelled_count,
        "delayed_problems": list(result.delayed.problems),
        "notes": list(result.notes),
    }


def round_json(outcome: Round) -> dict[str, Any]:
    """All lanes of a round, and the jobs that could not be lanes."""
    refused = [{"job": one.job, "problems": list(one.problems)} for one in outcome.refused]
    return {"lanes": [result_json(result) for result in outcome.results], "refused": refused, "ends": endings_json(outcome.endings)}


def endings_json(endings: Endings) -> dict[str, Any]:
    """What a tick did about the ends of submissions."""
    return {
        "open_count": endings.open_count,
        "looked_count": endings.looked_count,
        "finish_count": sum(endings.sent.values()),
        "request_count": endings.request_count,
        "problems": list(endings.problems),
    }


def explained(result: TickResult) -> list[str]:
    """The lines of one lane."""
    lines = explained_decision(result.decision, _delayed(result))
    lines += [f"  {line}" for line in (*_outcome(result), *(f"note: {note}" for note in result.notes))]
    return lines


def explained_round(outcome: Round) -> list[str]:
    """The lines of all lanes, and of the jobs that could not be lanes."""
    lines = [line for result in outcome.results for line in explained(result)]
    lines += ends_lines(outcome.endings)
    for refused in outcome.refused:
        lines += [f"job {refused.job}: not a lane until this is right", *(f"  {problem}" for problem in refused.problems)]
    return lines


def ends_lines(endings: Endings) -> list[str]:
    """Nothing is said where no end is to be fired."""
    problems = [f"ends: {problem}" for problem in endings.problems]
    if not endings.open_count:
        return problems
    looked = f"{counted(endings.looked_count, 'submission')} of {endings.open_count} looked at, {sum(endings.sent.values())} may have ended"
    return [f"ends: {looked} ({counted(endings.request_count, 'request')})", *problems]


def _delayed(result: TickResult) -> list[str]:
    """Delayed tasks that were due, which count as accepted."""
    count, problems = result.delayed.count, [f"delayed: {problem}" for problem in result.delayed.problems]
    ended = result.delayed.cancelled_count
    if ended:
        problems = [f"delayed: ended {counted(ended, 'delayed task')} that {'was' if ended == 1 else 'were'} cancelled", *problems]
    if not count:
        return problems
    tasks, more = counted(count, "delayed task"), "; more are due, the next tick goes on" if result.delayed.more else ""
    verb = f"a tick republishes {tasks}" if result.dry_run else f"republished {tasks}"
    return [f"delayed: {verb} that {are(count)} due{more}", *problems]


def _outcome(result: TickResult) -> list[str]:
    if result.dry_run and result.decision.kind is Kind.LAUNCH:
        return ["dry run: nothing was launched"]
    if result.stood_down:
        return ["stood down: another controller decided for this lane at the same time"]
    return [*(f"launched {name}" for name in result.launched), *(f"not launched: {failure}" for failure in result.failures)]
