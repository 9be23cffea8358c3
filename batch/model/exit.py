"""How a worker ends: a closed set of reasons, and the exit code of each.

Exit code 0 tells Cloud Run that this worker needs no retry: what it did not do stays in the subscription for the next
execution. Only an end that another try could mend is a failure.
"""

from __future__ import annotations

from enum import StrEnum


class ExitReason(StrEnum):
    """Why a worker stopped; the last line it logs says which."""

    SHARE_DONE = "share_done"
    """It took its whole share, and no message is outstanding."""
    DRAINED = "drained"
    """Several pulls in a row, over a minimum time, found nothing."""
    OUT_OF_TIME = "out_of_time"
    """The task timeout is near; it nacked what had not started."""
    STOPPED = "stopped"
    """SIGTERM or SIGINT; it nacked what had not started."""
    NOT_CLAIMED = "not_claimed"
    """Another execution does the work of this decision."""
    BROKEN = "broken"
    """A service it needs is missing, forbidden or down; it nacked everything."""
    STUCK = "stuck"
    """One of its own threads sent no heartbeat for WATCHDOG_S, or as many handlers hang as it can bear; it nacked what had not ended."""


EXIT_OK = 0
EXIT_CRASHED = 1
EXIT_SETTINGS = 2
EXIT_BROKEN = 3
EXIT_STUCK = 4

EXIT_CODES = {
    EXIT_OK: "ended as it should: share_done, drained, out_of_time, stopped or not_claimed",
    EXIT_CRASHED: "a fault in Fanout itself; the log has the traceback",
    EXIT_SETTINGS: "settings are missing or wrong; every problem was printed",
    EXIT_BROKEN: "broken: a service is missing, forbidden or down; the log says which and what to do",
    EXIT_STUCK: "stuck: one of the worker's own threads sent no heartbeat, or its handlers hang; the log has stacks; Cloud Run tries again",
}


def exit_code(reason: ExitReason) -> int:
    """The process' exit code for a reason: 0, or 3 and 4 where another try could help."""
    return {ExitReason.BROKEN: EXIT_BROKEN, ExitReason.STUCK: EXIT_STUCK}.get(reason, EXIT_OK)
