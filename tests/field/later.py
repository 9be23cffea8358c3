"""`python -m tests.field.later`: a worker whose clock is CLOCK_AHEAD_S ahead, so that an hour of a lane passes between two of them."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from batch.__main__ import leave, main
from batch.model.clock import SystemClock
from bench.worker.process import peak_of


def later(_clock: SystemClock) -> float:
    """What the worker's clock says instead; durations are as they are."""
    return time.time() + float(os.environ["CLOCK_AHEAD_S"])


if __name__ == "__main__":
    SystemClock.now = later  # type: ignore[method-assign, assignment]
    code = main()
    print(json.dumps({"peak_mb": round(peak_of(Path("/proc/self/status").read_text()))}), file=sys.__stdout__)
    leave(code)
