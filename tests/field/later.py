"""`python -m tests.field.later`: a worker whose clock is CLOCK_AHEAD_S ahead, so that an hour of a lane passes between two of them."""

from __future__ import annotations

import json
import os
import resource
import sys
import time

from batch.__main__ import main
from batch.model.clock import SystemClock


class AheadClock:
    """What the worker's clock says instead; durations are as they are."""

    ahead_s = float(os.environ["CLOCK_AHEAD_S"])

    def now(self) -> float:
        return time.time() + self.ahead_s


if __name__ == "__main__":
    SystemClock.now = AheadClock().now  # type: ignore[method-assign]
    code = main()
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))
    sys.stdout.flush()
    os._exit(code)
