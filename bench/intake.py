"""The front door beside a tutorial's service (Flask and gunicorn), over Google's Pub/Sub emulator, driven by wrk; many tasks at once beside
the bare publisher client.

    python -m bench.intake

takes about seven minutes; clients and servers share the cores of the machine, so only ratios of one round say much: each round measures
everybody in turn. It writes bench/results/intake.json and its block of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from google.cloud.pubsub_v1 import PublisherClient
from google.cloud.pubsub_v1.types import BatchSettings

from bench.machine import facts, load
from bench.page import PAGE, RESULTS, cell, conditions, grid, put_into, taken
from bench.recording import Measure, Recording, write
from bench.servers import google_pubsub, local_service

NAME = "intake"
PROJECT, TOPIC, BUCKET = "bench", "tasks", "bench-intake"
START_S = 60.0
TASK = {"task_type": "file_processing", "filename": "reports/2026-01-31/a.csv", "note": "x" * 110}
FANOUT, TWO, THREADS, KEYED, WIDE = "Fanout", "Flask, 2 workers", "Flask, 2 × 16 threads", "Fanout, with a key", "Fanout, 256 connections"
SCRIPT = """
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
wrk.body = [[%s]]
"""
WITH_KEYS = """
local number = 0
function setup(thread) number = number + 1; thread:set("id", number) end
local sent = 0
function request()
  sent = sent + 1
  wrk.headers["Idempotency-Key"] = "%s-" .. id .. "-" .. sent
  return wrk.format()
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: requests a second, and milliseconds."""

    rate: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.intake", description="The front door beside Flask and gunicorn.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="of each load")
    parser.add_argument("--tasks", type=int, default=100_000, help="submitted at once")
    parser.add_argument("--output", type=Path, default=RESULTS / "intake.json")
    parser.add_argument("--page", type=lambda given: Path(given) if given else None, default=PAGE, help="page to update; empty: none")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.exit(2, "wrk is not installed: apt-get install wrk (Debian, Ubuntu), brew install wrk (macOS)\n")
    single = Measure("one task a request", "requests/s", "")
    slowest = Measure("p99", "ms", "")
    ratios = Measure("ratio in one round", "", "")
    bulk = Measure("many tasks at once", "tasks/s", "")
    packages = ("flask", "gunicorn", "fastapi", "uvloop", "httptools")
    began = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    recording = Recording("python -m bench.intake", began, load(), facts(packages), [single, slowest, ratios, bulk])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = _servers(stack, folder)
        for number in range(options.rounds):
            seen = {who: _loaded(folder, who, url, options.seconds, number) for who, url in urls.items()}
            for who, one in seen.items():
                single.add(who, one.rate)
                slowest.add(who, one.p99_ms)
            for who, least in ((TWO, ">= 10"), (THREADS, ">= 1.5")):
                ratios.add(f"{FANOUT} ÷ {who} (wanted {least})", seen[FANOUT].rate / seen[who].rate)
            ratios.add("256 ÷ 64 connections (wanted >= 0.95)", seen[WIDE].rate / seen[FANOUT].rate)
            ratios.add("p99 ÷ median at 256 connections (wanted <= 4)", seen[WIDE].p99_ms / seen[WIDE].p50_ms)
            _add_bulk(bulk, ratios, urls[FANOUT], options.tasks)
    write(recording, options.output)
    shown = text(recording)
    print(shown)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), NAME, shown), encoding="utf-8")


def text(recording: Recording) -> str:
    """As it stands in the page."""
    body = [[measure.name, who, cell(runs), measure.unit] for measure in recording.measures for who, runs in measure.runs.items()]
    return "\n".join([taken(recording), "", *grid(["what", "who", "seen", "unit"], body), "", *conditions(recording)])


def _servers(stack: ExitStack, folder: Path) -> dict[str, str]:
    """The address of each contender; those that stand still cost nothing."""
    pubsub, storage = stack.enter_context(google_pubsub()), stack.enter_context(local_service("storage", folder))
    os.environ.update(PUBSUB_EMULATOR_HOST=pubsub.address, STORAGE_EMULATOR_HOST=storage.address, GOOGLE_CLOUD_PROJECT=PROJECT)
    body = json.dumps({"name": BUCKET}).encode()
    made = urllib.request.Request(f"{storage.address}/storage/v1/b?project={PROJECT}", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(made, timeout=30).close()
    PublisherClient().create_topic(name=f"projects/{PROJECT}/topics/{TOPIC}")
    gunicorn = [sys.executable, "-m", "gunicorn", "--log-level", "error", "-w", "2"]
    flask = "bench.tutorial_service:app"
    door = stack.enter_context(_serving([sys.executable, "-m", "intake"], BUCKET_NAME=BUCKET))
    # What is compared stands side by side: the machine is not the same a minute later.
    return {
        WIDE: door,
        FANOUT: door,
        THREADS: stack.enter_context(_serving([*gunicorn, "--threads", "16", flask])),
        TWO: stack.enter_context(_serving([*gunicorn, flask])),
        KEYED: door,
    }


@contextmanager
def _serving(command: list[str], **environment: str) -> Iterator[str]:
    """The address of a service, once it answers. It gets a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {**os.environ, "TOPIC_NAME": TOPIC, "PORT": str(port), "HOST": "127.0.0.1", "LOG_LEVEL": "ERROR", **environment}
    command = [*command[:-1], "-b", f"127.0.0.1:{port}", command[-1]] if "gunicorn" in command else command
    with subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until_s:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{url} did not answer within {START_S:g} s")


def _loaded(folder: Path, who: str, url: str, seconds: int, number: int) -> Load:
    """One load of one contender, after a second of warming up."""
    script = folder / "submit.lua"
    _run_wrk(folder, script, who, f"{url}/submit-task", 1, f"warm-{number}")
    return _run_wrk(folder, script, who, f"{url}/submit-task", seconds, f"{number}")


def _run_wrk(folder: Path, script: Path, who: str, url: str, seconds: int, run: str) -> Load:
    script.write_text(SCRIPT % json.dumps(TASK) + (WITH_KEYS % f"{folder.name}-{run}" if who == KEYED else ""), encoding="utf-8")
    connections = 256 if who == WIDE else 64
    command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "--latency", "-s", str(script), url]
    seen = load_in(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if not seen.rate and seconds > START_S:
        raise RuntimeError(f"{who} answered nothing in {seconds} s")
    # On a busy machine a short load may end before its first answer.
    return seen if seen.rate else _run_wrk(folder, script, who, url, 2 * seconds, f"{run}-longer")


def load_in(printed: str) -> Load:
    """Of what wrk prints. Raises RuntimeError if any request was not answered with 2xx."""
    if wrong := re.search(r"Non-2xx.*|Socket errors.*", printed):
        raise RuntimeError(f"wrk: {wrong[0]}")
    found = {name: re.search(rf"^ *{name}:? +([0-9.]+)(us|ms|s|m)? *$", printed, re.MULTILINE) for name in ("50%", "99%", "Requests/sec")}
    if not all(found.values()):
        raise RuntimeError(f"wrk printed something else: {printed}")
    units = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, None: 1.0}
    p50, p99, rate = (float(one[1]) * units[one[2]] for one in found.values() if one)
    return Load(rate, p50, p99)


def _add_bulk(bulk: Measure, ratios: Measure, url: str, count: int) -> None:
    """Both in turn; the front door only if it takes many tasks at once."""
    tasks = [{**TASK, "number": number} for number in range(count)]
    began_s = time.monotonic()
    publisher = PublisherClient(batch_settings=BatchSettings(max_messages=1000, max_bytes=9_000_000))
    topic = publisher.topic_path(PROJECT, TOPIC)
    for future in [publisher.publish(topic, json.dumps(task).encode()) for task in tasks]:
        future.result()
    bulk.add("the publisher client", count / (time.monotonic() - began_s))
    publisher.stop()
    body = "".join(json.dumps(task) + "\n" for task in tasks).encode()
    began_s = time.monotonic()
    request = urllib.request.Request(f"{url}/submissions", body, {"Content-Type": "application/x-ndjson"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            receipt = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise RuntimeError(f"POST /submissions: {error.code} {error.read()[:500]!r}") from error
        print("POST /submissions is not served: many tasks at once are left out")
        return
    if receipt["accepted_count"] != count:
        raise RuntimeError(f"POST /submissions accepted {receipt['accepted_count']} of {count} tasks")
    bulk.add("POST /submissions", count / (time.monotonic() - began_s))
    client, door = (runs[-1] for runs in bulk.runs.values())
    ratios.add("POST /submissions ÷ the publisher client (wanted >= 0.5)", door / client)


if __name__ == "__main__":
    main()
