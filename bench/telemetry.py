"""The worker with telemetry beside itself without, on Google's Pub/Sub emulator, in interleaved pairs.

    python -m bench.telemetry

takes about ten minutes and wants an otherwise quiet machine. It writes bench/results/telemetry.json and its block of docs/benchmarks.md.
What is exported goes to a collector that only reads it, in a process of its own. Pairs measure one kind of messages, without telemetry and
with it, one after the other, and the next pair begins with the other one.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from bench.machine import facts, load
from bench.page import PAGE, RESULTS, ROOT, cell, conditions, grid, put_into, taken
from bench.pairs import T_95, interval
from bench.recording import Measure, Recording, write
from bench.servers import google_pubsub, local_service
from bench.worker.contenders import worker_run
from bench.worker.handlers import module_of
from bench.worker.lane import delete, fresh_lane, publish

NAME = "telemetry"
COUNT = 50_000
TRACE = "0af7651916cd43dd8448eb211c80319c"
PLAIN, UNSAMPLED, ONE_PERCENT, ALL = "no context", "context, not sampled", "context, 1 % sampled", "context, all sampled"
KINDS: Mapping[str, int | None] = {PLAIN: None, UNSAMPLED: 0, ONE_PERCENT: 100, ALL: 1}
"""Of how many messages one is sampled: 0 for none, None without a context."""
OFF, ON = "off", "on"
RATE, CPU = "messages a second", "processor time a message"
LEAST = 0.85


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.telemetry", description="The worker with telemetry and without.")
    parser.add_argument("--pairs", type=int, default=9, choices=sorted(T_95), help="pairs of each kind, after one that does not count")
    parser.add_argument("--messages", type=int, default=COUNT)
    parser.add_argument("--kinds", type=lambda given: given.split(";"), default=list(KINDS), help="separated by semicolons")
    parser.add_argument("--local", action="store_true", help="on the local cloud instead of Google's emulator")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{NAME}.json")
    parser.add_argument("--page", type=lambda given: Path(given) if given else None, default=PAGE, help="page to update; empty: none")
    options = parser.parse_args()
    measures = {(what, kind): Measure(f"{what}, {kind}", unit, "") for kind in options.kinds for what, unit in ((RATE, "/s"), (CPU, "µs"))}
    recording = Recording("python -m bench.telemetry", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(), list(measures.values()))
    with (
        tempfile.TemporaryDirectory() as folder,
        _collector() as collector,
        local_service("storage", Path(folder)) as storage,
        local_service("pubsub", Path(folder)) if options.local else google_pubsub() as pubsub,
    ):
        for number, kind in itertools.product(range(options.pairs + 1), options.kinds):
            for who in (OFF, ON) if number % 2 else (ON, OFF):
                on = {"TELEMETRY": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": collector} if who == ON else {}
                rate, cpu_us = _run(pubsub.address, storage.address, options.messages, KINDS[kind], on)
                if number:
                    measures[RATE, kind].add(who, rate)
                    measures[CPU, kind].add(who, cpu_us)
                print(f"pair {number}, {kind}, {who}: {rate:,.0f}/s, {cpu_us:.2f} µs", file=sys.stderr, flush=True)
    write(recording, options.output)
    shown = text(recording)
    print(shown)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), NAME, shown), encoding="utf-8")


def text(recording: Recording) -> str:
    """As it stands in the page. Of each pair the ratio: of rates on ÷ off, of processor time off ÷ on, so that below 1 telemetry costs."""
    body = []
    for measure in recording.measures:
        off, on = measure.runs[OFF], measure.runs[ON]
        ratios = [b / a if measure.unit == "/s" else a / b for a, b in zip(off, on, strict=True)]
        mean, low, high = interval(ratios)
        bound = measure.unit == "/s" and not measure.name.endswith(ALL)
        wanted = f"≥ {LEAST:.2f} {'✓' if median(ratios) >= LEAST else '✗'}" if bound else ""
        body.append([measure.name, measure.unit, cell(off), cell(on), f"{mean:.3f} ({low:.3f}–{high:.3f})", wanted])
    head = ["measure", "unit", OFF, ON, "ratio (95 % interval)", "wanted"]
    return "\n".join([taken(recording), "", *grid(head, body), "", *conditions(recording)])


def attributes_of(every: int | None) -> Callable[[int], Mapping[str, str]]:
    """Of messages by number, of which one in so many is sampled."""
    if every is None:
        return lambda _number: {}
    return lambda number: {"traceparent": f"00-{TRACE}-{number + 1:016x}-{'01' if every and number % every == 0 else '00'}"}


def _run(pubsub: str, storage: str, count: int, every: int | None, settings: Mapping[str, str]) -> tuple[float, float]:
    """Messages a second, and processor µs a message."""
    lane = fresh_lane(pubsub, storage)
    try:
        publish(lane, pubsub, "noop", count, attributes_of(every))
        run = worker_run(lane, count, module_of("noop"), **settings)
        return run.rate, run.cpu_us
    finally:
        delete(lane, pubsub)


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def serve(arguments: Sequence[str]) -> None:
    """The collector's process."""
    if arguments == ["collect"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
        print(server.server_port, flush=True)
        server.serve_forever()


@contextmanager
def _collector() -> Iterator[str]:
    command = [sys.executable, "-m", "bench.telemetry", "collect"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


if __name__ == "__main__":
    serve(sys.argv[1:])
    main()
