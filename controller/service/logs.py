"""Log lines as Cloud Logging reads them: one JSON object a line on standard output, with a severity."""

from __future__ import annotations

import json
import sys
from typing import Any

from controller.decide.decision import to_json
from controller.tick import Round, TickResult


def write(severity: str, message: str, **fields: Any) -> None:
    """One line. `severity` is DEBUG, INFO, NOTICE, WARNING or ERROR."""
    sys.stdout.write(json.dumps({"severity": severity, "message": message, **fields}, default=str) + "\n")
    sys.stdout.flush()


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
        "delayed_problems": list(result.delayed.problems),
        "notes": list(result.notes),
    }


def round_json(outcome: Round) -> dict[str, Any]:
    """All lanes of a round, and the jobs that could not be lanes."""
    refused = [{"job": one.job, "problems": list(one.problems)} for one in outcome.refused]
    return {"lanes": [result_json(result) for result in outcome.results], "refused": refused}


def write_round(outcome: Round) -> None:
    """One line for each lane, and for each job that could not be one."""
    for result in outcome.results:
        severity = "WARNING" if result.decision.troubled or result.failures or result.delayed.problems else "INFO"
        write(severity, f"lane {result.decision.lane}: {result.decision.kind}: {result.decision.reason}", **result_json(result))
    for one in outcome.refused:
        write("ERROR", f"job {one.job} is not ticked: {'; '.join(one.problems)}", job=one.job, problems=list(one.problems))
