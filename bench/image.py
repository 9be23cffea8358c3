"""The size of the image, and how long each of its entries takes to start: a worker and the dead-letters job to their first pull, the
services to their first answer.

    python -m bench.image

takes five minutes as root, with buildah: it builds the image without tables, as it is, and with telemetry. It writes
bench/results/image.json and its block of docs/benchmarks.md. `make image-check` measures the same in passing, and records nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.container import Image, built, size_mb
from bench.machine import facts, load
from bench.page import PAGE, RESULTS, cell, conditions, grid, put_into, taken
from bench.recording import Measure, Recording, write
from bench.servers import local_service
from bench.worker.starting import Stopwatch, serving

NAME = "image"
AS_IT_IS = "as it is"
VARIANTS: Mapping[str, Mapping[str, str]] = {"without tables": {"DATA": ""}, AS_IT_IS: {}, "with telemetry": {"TELEMETRY": "1"}}
PULLING: Mapping[str, Sequence[str]] = {"worker": (), "dead-letters job": ("python", "-m", "batch", "dead-letters")}
"""Commands by entry; the image itself starts a worker."""
SERVING: Mapping[str, Sequence[str]] = {"controller": ("python", "-m", "controller"), "intake": ("python", "-m", "intake")}
HEALTH_ROUTES = {"controller": "/healthz", "intake": "/health"}
PROJECT, BUCKET = "my-project", "my-bucket"
_RULES = {"errors": [], "after_s": 600, "times": 3, "rate": 100}
LANES = {"lanes": {"lane": {"name": "lane", "subscription": "lane", "topic": "lane", "rules": _RULES}}}
"""What a tick writes down, and the dead-letters job reads first."""
START_LIMIT_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.image", description="The image: its size, and the start of each entry.")
    parser.add_argument("--starts", type=int, default=9, help="of each entry")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{NAME}.json")
    parser.add_argument("--page", type=lambda given: Path(given) if given else None, default=PAGE, help="page to update; empty: none")
    options = parser.parse_args()
    measures = [Measure("size", "MB", ""), Measure("start", "s", "")]
    recording = Recording("python -m bench.image", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(), measures, [])
    for variant, arguments in VARIANTS.items():
        with built(**arguments) as image:
            recording.notes = [f"The base is {image.base}."]
            measure(image, *measures, variant=variant, starts=options.starts if variant == AS_IT_IS else 0)
    write(recording, options.output)
    shown = text(recording)
    print(shown)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), NAME, shown), encoding="utf-8")


def text(recording: Recording) -> str:
    """As it stands in the page."""
    return "\n".join([taken(recording), "", *lines(recording.measures), "", *conditions(recording)])


def lines(measures: Sequence[Measure]) -> list[str]:
    """The table."""
    body = [[measure.name, who, cell(runs), measure.unit] for measure in measures for who, runs in measure.runs.items()]
    return grid(["what", "of", "seen", "unit"], body)


def measure(image: Image, size: Measure, start: Measure, *, variant: str, starts: int) -> None:
    """Add the size of the whole, and of its part that Fanout brings; so many starts of each entry, in turn."""
    size.add(f"the image {variant}", size_mb(image.root))
    size.add(f"of it Fanout and its packages, {variant}", size_mb(image.root / "opt/fanout"))
    with tempfile.TemporaryDirectory() as name, local_service("storage", Path(name)) as storage:
        _call(f"{storage.address}/storage/v1/b?project={PROJECT}", {"name": BUCKET})
        _call(f"{storage.address}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=controller%2Flanes.json", LANES)
        for _ in range(starts):
            for entry, command in PULLING.items():
                start.add(f"{entry}, to its first pull", _to_first_pull_s(image, command, storage.address))
            for entry, command in SERVING.items():
                start.add(f"{entry}, to its first answer", _to_first_answer_s(image, entry, command, storage.address))


def settings(pubsub: str, storage: str, **more: str) -> dict[str, str]:
    """The environment of an entry in the local cloud; `PORT=0` takes a free port."""
    return {
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "BUCKET_NAME": BUCKET,
        "PUBSUB_EMULATOR_HOST": pubsub,
        "STORAGE_EMULATOR_HOST": storage,
        "CLOUD_RUN_EMULATOR_HOST": "http://127.0.0.1:9",
        "CLOUD_MONITORING_EMULATOR_HOST": pubsub,
        "PORT": "0",
        **more,
    }


def _to_first_pull_s(image: Image, command: Sequence[str], storage: str) -> float:
    stopwatch = Stopwatch()
    environment = settings("", storage, SUBSCRIPTION_NAME="lane", CLOUD_RUN_JOB="lane", CLOUD_RUN_EXECUTION="lane-x")
    with serving(stopwatch) as address, tempfile.TemporaryDirectory() as temporary:
        began_s = time.monotonic()
        with image.start(Path(temporary), {**environment, "PUBSUB_EMULATOR_HOST": address}, command) as process:
            try:
                if not stopwatch.pulled.wait(START_LIMIT_S):
                    process.kill()
                    said = process.stdout.read().decode() if process.stdout else ""
                    raise RuntimeError(f"{command or image.command} did not pull within {START_LIMIT_S} s:\n{said[-2000:]}")
            finally:
                process.kill()
    return stopwatch.pulled_s - began_s


def _to_first_answer_s(image: Image, entry: str, command: Sequence[str], storage: str) -> float:
    with tempfile.TemporaryDirectory() as temporary:
        began_s = time.monotonic()
        with image.start(Path(temporary), settings("127.0.0.1:9", storage, TOPIC_NAME="tasks"), command) as process:
            try:
                assert process.stdout is not None
                url = listening(process.stdout)
                with urllib.request.urlopen(url + HEALTH_ROUTES[entry], timeout=START_LIMIT_S) as answer:
                    answer.read()
                return time.monotonic() - began_s
            finally:
                process.kill()


def listening(log: Iterable[bytes]) -> str:
    """The address that a service logs when it listens. Raises RuntimeError with its log if it ends before."""
    said = []
    for line in log:
        said.append(line.decode())
        if b"service_listening" in line:
            return str(json.loads(line)["url"])
    raise RuntimeError(f"the service ended before it listened:\n{''.join(said)}")


def _call(url: str, body: Mapping[str, object]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=START_LIMIT_S).close()


if __name__ == "__main__":
    main()
