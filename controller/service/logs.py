"""Log lines as Cloud Logging reads them: one JSON object a line on standard output, with a severity."""

from __future__ import annotations

import json
import sys
from typing import Any

from controller.tick.results import Round, result_json


def write(severity: str, message: str, **fields: Any) -> None:
    """One line. `severity` is DEBUG, INFO, NOTICE, WARNING or ERROR."""
    sys.stdout.write(json.dumps({"severity": severity, "message": message, **fields}, default=str) + "\n")
    sys.stdout.flush()


def write_round(outcome: Round) -> None:
    """One line for each lane, and for each job that could not be one."""
    for result in outcome.results:
        severity = "WARNING" if result.decision.troubled or result.failures or result.delayed.problems else "INFO"
        write(severity, f"lane {result.decision.lane}: {result.decision.kind}: {result.decision.reason}", **result_json(result))
    for one in outcome.refused:
        write("ERROR", f"job {one.job} is not ticked: {'; '.join(one.problems)}", job=one.job, problems=list(one.problems))
