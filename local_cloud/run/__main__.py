"""`python -m local_cloud.run`: the Cloud Run Jobs service as a process.

It leaves no worker behind when it shuts down; after a kill, the next start on the same state folder ends what was left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
from pathlib import Path

from local_cloud.clock import Clock
from local_cloud.run.api.server import Server
from local_cloud.run.model.cloud import DELAYED_START_S
from local_cloud.run.runner.settings import Settings, StartUp, base_environment
from local_cloud.run.spec.validation import MAX_DELAYED_S
from local_cloud.web.refused_start import told
from local_cloud.web.service import make_private, parser, serve_until_end


def _options(argv: list[str] | None) -> argparse.Namespace:
    options = parser("run")
    options.add_argument("--region", default="us-central1", help="where a job goes whose v1 request names no region")
    options.add_argument("--max-processes", type=int, default=64, help="workers at a time, over all executions")
    options.add_argument(
        "--startup-delay-s", type=float, default=0.0, help="clock seconds between a worker's slot and its process: the median"
    )
    options.add_argument(
        "--startup-spread", type=float, default=0.0, help="standard deviation of that delay's logarithm; 0: always the median"
    )
    options.add_argument(
        "--delayed-start-s",
        type=float,
        default=DELAYED_START_S,
        help="clock seconds until a delayed job's execution starts, up to 12 h",
    )
    options.add_argument("--secrets-dir", type=Path, help="where secrets are files; by default `secrets` in the state folder")
    options.add_argument("--seed", type=int, help="makes names, ids and delays repeatable")
    options.add_argument("--pass-env", nargs="*", action="extend", default=[], metavar="NAME", help="variables of this process to pass on")
    chosen = options.parse_args(argv)
    if chosen.max_processes < 1:
        options.error(f"--max-processes: got {chosen.max_processes}, must be 1 or more")
    for name in ("startup_delay_s", "startup_spread"):
        if not 0 <= getattr(chosen, name) < float("inf"):
            options.error(f"--{name.replace('_', '-')}: got {getattr(chosen, name)}, must be 0 or more")
    if not 0 <= chosen.delayed_start_s <= MAX_DELAYED_S:
        options.error(f"--delayed-start-s: got {chosen.delayed_start_s}, must be 0 to {MAX_DELAYED_S:.0f} (12 h), as in Cloud Run")
    return chosen


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    # The workers are the user's programs: the files that they write elsewhere keep the user's own umask.
    make_private(options.state_dir, files_too=False)
    rng = random.Random(options.seed)
    settings = Settings(
        max_process_count=options.max_processes,
        environment=base_environment(os.environ, options.pass_env),
        cwd=Path.cwd(),
        startup=StartUp(options.startup_delay_s, options.startup_spread, rng.getrandbits(32)),
    )
    server = Server(
        options.state_dir,
        settings,
        Clock(),
        rng,
        region=options.region,
        host=options.host,
        port=options.port,
        secrets=options.secrets_dir,
        delayed_start_s=options.delayed_start_s,
        on_crash=lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM),
    )
    address = server.start()
    serve_until_end(exit_with_stdin=options.exit_with_stdin, stop=server.stop, service="run", http=f"http://{address}")


if __name__ == "__main__":
    told("run", main)
