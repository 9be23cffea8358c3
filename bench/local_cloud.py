"""The speed and the memory of the local cloud, side by side with Google's Pub/Sub emulator in one run.

    python -m bench.local_cloud

takes about two minutes and wants an otherwise quiet machine: client and server share its cores. It writes
bench/results/local_cloud.json, prints its table and puts it into docs/benchmarks.md. Read the column of ratios:
above 1 means that the local cloud is faster (or, for memory, bigger). Numbers of different machines do not compare.

Publish: 1,000 messages a call, one call at a time in each client; raw requests made beforehand, which measures the server alone,
and with Google's client, which is what a program sees. Pull + ack: each client asks for 1,000 and acks what it
got in one call; Google's emulator gives at most 100 a pull. With 8 clients each is a process of its own. Each round measures
both servers, one after the other; the first round warms them up and does not count. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import facts, load, resident_mb
from bench.page import PAGE, RESULTS, put_into, table
from bench.pubsub_load import Clients, cleared, prepared, publish_share
from bench.recording import Measure, Recording, write
from bench.servers import NotInstalled, Server, google_pubsub, launcher, local_service
from bench.storage_load import write_seconds

NAME = "local_cloud"
LOCAL, GOOGLE = "local cloud", "Google's emulator"
COLUMNS = (LOCAL, GOOGLE)
SIZES_BYTES = (200, 1_000)
WRITERS = 8
OBJECT_BYTES = 1_000


def main() -> None:
    options = _options()
    recording = Recording(f"python -m bench.{NAME}", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(), [], [])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notes = [] if options.only_local else _missing_google()
        names = [LOCAL] if options.only_local or notes else list(COLUMNS)
        recording.notes = notes
        recording.measures = [*_speed(folder, names, options), _memory(folder, names, options.backlog), _objects(folder, options)]
    write(recording, options.output)
    text = table(recording, COLUMNS)
    print(text)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), NAME, text), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{NAME}", description="The local cloud beside Google's Pub/Sub emulator.")
    parser.add_argument("--runs", type=int, default=5, help="rounds that count, after one that does not")
    parser.add_argument("--messages", type=int, default=80_000, help="messages of a round")
    parser.add_argument("--clients", type=int, default=8, help="clients of the measures with several")
    parser.add_argument("--backlog", type=int, default=100_000, help="messages that wait when memory is measured")
    parser.add_argument("--objects", type=int, default=1_000, help="objects that are written")
    parser.add_argument("--only-local", action="store_true", help="leave Google's emulator out")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{NAME}.json")
    parser.add_argument("--page", type=lambda text: Path(text) if text else None, default=PAGE, help="page to update; empty: none")
    return parser.parse_args()


def _missing_google() -> list[str]:
    """Why Google's emulator is not measured; empty if it can be."""
    try:
        launcher()
    except NotInstalled as error:
        return [f"Google's emulator was not measured: {error}."]
    return []


@contextmanager
def _servers(folder: Path, names: list[str]) -> Iterator[dict[str, Server]]:
    """Fresh Pub/Sub servers by name."""
    with ExitStack() as stack:
        starts = {LOCAL: lambda: local_service("pubsub", folder), GOOGLE: google_pubsub}
        yield {name: stack.enter_context(starts[name]()) for name in names}


def _speed(folder: Path, names: list[str], options: argparse.Namespace) -> list[Measure]:
    cases = [(size, clients) for size in SIZES_BYTES for clients in (1, options.clients)]
    aim = f"≥ 1 × {GOOGLE}"
    publishing = {case: Measure(f"publish, {_case(*case)}", "messages/s", aim) for case in cases}
    through = {
        case: Measure(f"publish with Google's client, {_case(*case)}", "messages/s", aim) for case in cases if case[0] == SIZES_BYTES[0]
    }
    draining = {case: Measure(f"pull + ack, {_case(*case)}", "messages/s", aim) for case in cases}
    with _servers(folder, names) as servers, Clients(options.clients) as clients:
        for round_number in range(options.runs + 1):
            for size, count in cases:
                for name, server in servers.items():
                    job = prepared(server.address, options.messages, size)
                    published, drained = clients.publish(job, count), clients.drain(job, count)
                    if round_number:
                        publishing[size, count].add(name, published)
                        draining[size, count].add(name, drained)
                    if round_number and (size, count) in through:
                        through[size, count].add(name, clients.publish_through_client(job, count))
                    cleared(job)
    return [*publishing.values(), *through.values(), *draining.values()]


def _case(size: int, clients: int) -> str:
    return f"{size:,} B, {clients} client{'s' if clients > 1 else ''}"


def _memory(folder: Path, names: list[str], backlog: int) -> Measure:
    """Resident memory of a fresh server with a backlog of 1,000-byte messages."""
    measure = Measure(f"memory with {backlog:,} × 1,000 B waiting", "MB", "< 400 MB")
    with _servers(folder, names) as servers:
        for name, server in servers.items():
            publish_share(prepared(server.address, backlog, 1_000))
            measure.add(name, resident_mb(server.pid))
    return measure


def _objects(folder: Path, options: argparse.Namespace) -> Measure:
    measure = Measure(f"{options.objects:,} objects of {OBJECT_BYTES:,} B, {WRITERS} threads of one client", "s", "< 3 s")
    with local_service("storage", folder) as server:
        for round_number in range(options.runs + 1):
            seconds = write_seconds(server.address, count=options.objects, size=OBJECT_BYTES, threads=WRITERS)
            if round_number:
                measure.add(LOCAL, seconds)
    return measure


if __name__ == "__main__":
    main()
