"""The worker beside its rivals, on Google's Pub/Sub emulator and on the local cloud, in one run.

    python -m bench.worker

takes about 25 minutes and wants an otherwise quiet machine: worker and servers share its cores. It writes
bench/results/worker.json, prints its tables and puts them into docs/benchmarks.md. With `--million` it measures only the memory
of a worker on 1,000,000 messages, and writes worker_million.json; with `--files` only tasks that read and write objects, and writes
worker_files.json.

Every round runs all contenders, one after the other, so that what disturbs the machine disturbs them alike; a first round, which
does not count, warms the servers up. Ctrl-C ends it with what was measured so far. Each run has a fresh topic, subscription and bucket.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.delay_proxy import delayed
from bench.machine import facts, load
from bench.page import PAGE, RESULTS, put_into
from bench.recording import Recording, write
from bench.servers import NotInstalled, google_pubsub, launcher, local_service
from bench.worker.bench import Bench, Servers
from bench.worker.contenders import CONTENDERS, Contender
from bench.worker.measures import DELAYS_MS, GOOGLE, LOCAL, SERVERS
from bench.worker.report import text

PACKAGES = ("celery", "kombu")


def main() -> None:
    options = _options()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background with it ignored
    part = "million" if options.million else "files" if options.files else ""
    name, command = (f"worker_{part}", f"python -m bench.worker --{part}") if part else ("worker", "python -m bench.worker")
    recording = Recording(command, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(PACKAGES), [], [])
    with tempfile.TemporaryDirectory() as folder, _servers(Path(folder), _names(recording, only_local=options.only_local)) as servers:
        bench = Bench(servers, options.scale, options.contenders)
        try:
            if options.million:
                bench.million(options.runs)
            elif options.files:
                bench.files(options.runs)
            else:
                bench.all(options.runs, options.delays)
        except KeyboardInterrupt:
            bench.notes.append("It was interrupted: the last round is not complete.")
        recording.measures, recording.notes = bench.measures, [*recording.notes, *bench.notes]
    write(recording, options.output or RESULTS / f"{name}.json")
    page = text(recording)
    print(page)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), name, page), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.worker", description="The worker beside its rivals.")
    parser.add_argument("--runs", type=int, default=3, help="rounds that count, after one that does not")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the messages that a full run has")
    parser.add_argument("--delays", type=_milliseconds, default=DELAYS_MS, help="added round trips in ms, separated by commas")
    parser.add_argument("--contenders", type=_contenders, default=CONTENDERS, help="names, separated by commas")
    parser.add_argument("--million", action="store_true", help="only the memory of a worker on 1,000,000 messages")
    parser.add_argument("--files", action="store_true", help="only tasks that read an object and write one")
    parser.add_argument("--only-local", action="store_true", help="leave Google's emulator out")
    parser.add_argument("--output", type=Path, default=None, help="file to write; in bench/results by default")
    parser.add_argument("--page", type=lambda given: Path(given) if given else None, default=PAGE, help="page to update; empty: none")
    return parser.parse_args()


def _milliseconds(given: str) -> tuple[int, ...]:
    return tuple(int(one) for one in given.split(","))


def _contenders(given: str) -> tuple[Contender, ...]:
    return tuple(one for one in CONTENDERS if one.name in given.split(","))


def _names(recording: Recording, *, only_local: bool) -> list[str]:
    if only_local:
        return [LOCAL]
    try:
        launcher()
    except NotInstalled as error:
        recording.notes = [f"Google's emulator was not measured: {error}."]
        return [LOCAL]
    return list(SERVERS)


@contextmanager
def _servers(folder: Path, names: list[str]) -> Iterator[Servers]:
    """Pub/Sub servers by name, one Storage, and proxies for both by the added round trip."""
    with ExitStack() as stack:
        starts = {LOCAL: lambda: local_service("pubsub", folder), GOOGLE: google_pubsub}
        pubsubs = {name: stack.enter_context(starts[name]()).address for name in names}
        storage = stack.enter_context(local_service("storage", folder)).address

        def proxy(address: str, delay_ms: int) -> str:
            return stack.enter_context(delayed(address, delay_ms / 2000))

        yield Servers(pubsubs, storage, proxy)


if __name__ == "__main__":
    main()
