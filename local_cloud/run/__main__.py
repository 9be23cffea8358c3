"""`python -m local_cloud.run`: the Cloud Run Jobs service as a process.

It never leaves a worker behind when it ends in order; after a kill, the next start on the same state folder clears up.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
from pathlib import Path

from local_cloud.clock import Clock
from local_cloud.run.environment import base_environment
from local_cloud.run.runner import Settings
from local_cloud.run.scheduler import Limits
from local_cloud.run.server import Server
from local_cloud.service import announce, parser, wait_for_end


def _options(argv: list[str] | None) -> argparse.Namespace:
    options = parser("run")
    options.add_argument("--region", default="us-central1", help="where a job goes whose v1 request names no region")
    options.add_argument("--max-processes", type=int, default=64, help="workers at a time, over all executions")
    options.add_argument("--startup-delay-s", type=float, default=0.0, help="clock seconds between a worker's slot and its process")
    options.add_argument("--pass-env", nargs="*", action="extend", default=[], metavar="NAME", help="variables of this process to hand on")
    chosen = options.parse_args(argv)
    if chosen.max_processes < 1:
        options.error(f"--max-processes: got {chosen.max_processes}, must be 1 or more")
    if chosen.startup_delay_s < 0:
        options.error(f"--startup-delay-s: got {chosen.startup_delay_s}, must be 0 or more")
    return chosen


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    settings = Settings(
        limits=Limits(options.max_processes, options.startup_delay_s),
        environment=base_environment(os.environ, options.pass_env),
        cwd=Path.cwd(),
    )
    server = Server(
        options.state_dir,
        settings,
        Clock(),
        random.Random(),
        region=options.region,
        host=options.host,
        port=options.port,
        on_crash=lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM),
    )
    announce(service="run", http=f"http://{server.start()}")
    wait_for_end(exit_with_stdin=options.exit_with_stdin, stop=server.stop)


if __name__ == "__main__":
    main()
