"""Tables: `data_transformation` side by side with its engine called directly, on files of CSV and Parquet.

    python -m bench.data                 # 10 and 100 MB, five rounds: ten minutes on a quiet machine
    python -m bench.data --megabytes 1000 --rounds 1

Each measurement is a process of its own, and the clock runs inside it: Fanout's from before the handler is called until it has returned
(the source is linked into its folder, and the result stays a file: neither the bucket nor a worker is measured; reading the whole source
for its encoding, types and counts, validation and both results are), the engine's from connecting to the file written. Both import the
engine before, use one thread and the same memory, and write the same format. The engine guesses types from a sample, counts nothing, says
nothing, and rounds: it is the limit, not a rival. `--before CHECKOUT` measures another checkout of Fanout too, with its own `.venv`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import facts, load
from bench.page import PAGE, RESULTS, ROOT, conditions, grid, put_into, taken
from bench.recording import Measure, Recording, write

NAME = "data"
FANOUT, ENGINE, BEFORE = "Fanout", "the engine alone", "before"
GOAL_PERCENT = 60
LIMIT_S = 1800
TASKS: Mapping[str, tuple[dict[str, Any], str]] = {
    "aggregation": (
        {"transformation": "aggregation", "group_by": "category", "values": ["value", "quantity"]},
        (
            "SELECT category, count(*), count(value), sum(value), avg(value), min(value), max(value), "
            "count(quantity), sum(quantity), avg(quantity), min(quantity), max(quantity) FROM {source} GROUP BY category ORDER BY category"
        ),
    ),
    "normalize": (
        {"transformation": "normalize", "columns": ["value", "quantity"]},
        (
            "SELECT * REPLACE ((value - (SELECT avg(value) FROM {source})) / (SELECT stddev_pop(value) FROM {source}) AS value, "
            "(quantity - (SELECT avg(quantity) FROM {source})) / (SELECT stddev_pop(quantity) FROM {source}) AS quantity) FROM {source}"
        ),
    ),
    "filter": (
        {"transformation": "filter", "conditions": [{"column": "value", "operator": ">=", "value": 500}]},
        "SELECT * FROM {source} WHERE value >= 500",
    ),
    "deduplicate": (
        {"transformation": "deduplicate", "columns": ["customer"]},
        (
            "SELECT * EXCLUDE row FROM (SELECT row_number() OVER () AS row, * FROM {source}) QUALIFY row_number() OVER "
            "(PARTITION BY customer ORDER BY row) = 1 ORDER BY row"
        ),
    ),
}
ONE = """
import json, os, shutil, sys, tempfile, threading, time
called = json.loads(sys.argv[1])
tempfile.tempdir = called["folder"]
peak, done = {"files": 0, "memory": 0}, threading.Event()
def watch():
    while not done.wait(0.05):
        found = [os.path.join(at, one) for at, _, names in os.walk(called["folder"]) for one in names]
        sizes = [os.stat(one).st_blocks * 512 for one in found if os.path.exists(one)]
        peak["files"] = max(peak["files"], sum(sizes))
try:
    import duckdb
except ImportError:
    duckdb = None
if called["fields"] is None:
    threading.Thread(target=watch, daemon=True).start()
    begin = time.perf_counter()
    con = duckdb.connect(config={"threads": 1, "memory_limit": f"{called['memory_mb']}MB", "temp_directory": called["folder"] + "/spill"})
    con.execute(f"COPY ({called['sql']}) TO '{called['folder']}/result' (FORMAT {called['format']})")
    taken = time.perf_counter() - begin
else:
    import batch.handlers
    from batch.services.ports import ObjectInfo
    from batch.testing import MemoryObjectStore, run_handler
    class Store(MemoryObjectStore):
        def download(self, name, path, *, max_bytes=None):
            os.link(called["source"], path)
            return ObjectInfo(name, 1, os.path.getsize(path))
        def upload(self, name, path, **options):
            return ObjectInfo(name, 1, os.path.getsize(path))
    store = Store()
    objects = {}
    if not hasattr(MemoryObjectStore, "download"):
        store.write("source", open(called["source"], "rb").read())
    threading.Thread(target=watch, daemon=True).start()
    begin = time.perf_counter()
    run_handler("data_transformation", {"source": "source", **called["fields"]}, store=store)
    taken = time.perf_counter() - begin
done.set()
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        peak["memory"] = int(line.split()[1]) * 1024
print(json.dumps({"seconds": taken, **peak}))
"""
"""Run in a process of its own: one measurement."""


def main() -> None:
    options = _options()
    given = " ".join(sys.argv[1:])
    recording = Recording(
        f"python -m bench.{NAME} {given}".strip(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(("duckdb",)), [], []
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        recording.measures = list(_measured(Path(name), options))
    write(recording, options.output)
    shown = text(recording)
    print(shown)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), NAME, shown), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{NAME}", description="data_transformation beside its engine called directly.")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100], help="sizes of the CSV; the Parquet holds the same rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, default=None, help="another checkout of Fanout, measured on the first size only")
    parser.add_argument("--folder", type=Path, default=None, help="where the files lie (default: the folder for temporary files)")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{NAME}.json")
    parser.add_argument("--page", type=lambda given: Path(given) if given else None, default=PAGE, help="page to update; empty: none")
    return parser.parse_args()


def _measured(folder: Path, options: argparse.Namespace) -> Iterator[Measure]:
    for size in options.megabytes:
        table = folder / f"{size}.csv"
        made(table, size * 1_000_000)
        typed = table.with_suffix(".parquet")
        _copied(table, typed)
        for form, source in (("csv", table), ("parquet", typed)):
            for task in TASKS:
                found = {kind: Measure(f"{task}, {size} MB, {form}, {kind}", unit, "") for kind, unit in UNITS.items()}
                for turn in range(options.rounds):
                    whos = [FANOUT, ENGINE] if turn % 2 else [ENGINE, FANOUT]
                    if options.before and size == options.megabytes[0] and turn == 0:
                        whos.append(BEFORE)
                    for who in whos:
                        values = one(who, task, source, form, options.before)
                        for kind, value in values.items():
                            found[kind].add(who, value)
                yield from found.values()


UNITS = {"time": "s", "memory": "MB", "files": "MB"}


def one(who: str, task: str, source: Path, form: str, before: Path | None) -> dict[str, float]:
    """One measurement. Raises RuntimeError when it fails."""
    fields, sql = TASKS[task]
    checkout = before if who == BEFORE and before else ROOT
    python = str(checkout / ".venv/bin/python") if (checkout / ".venv").exists() else sys.executable
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        called = {
            "source": str(source),
            "folder": folder,
            "fields": None if who == ENGINE else {**fields, "format": form},
            "sql": sql.format(source=f"'{source}'"),
            "format": form,
            "memory_mb": 192,
        }
        environment = {**os.environ, "PYTHONPATH": str(checkout), "DATA_MAX_BYTES": str(2 << 30)}
        done = subprocess.run(
            [python, "-c", ONE, json.dumps(called)],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
    if done.returncode != 0:
        raise RuntimeError(f"{who} could not do {task} on {source.name}:\n{done.stderr[-2000:]}")
    body = json.loads(done.stdout.splitlines()[-1])
    return {"time": body["seconds"], "memory": body["memory"] / 1e6, "files": body["files"] / 1e6}


def made(path: Path, size: int) -> None:
    """A table of measurements, always the same: six columns, one in three of numbers."""
    rng = random.Random(1).random
    number = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("id,category,customer,value,quantity,measured_at\n")
        while file.tell() < size:
            for _ in range(10_000):
                number += 1
                category = ("alpha", "beta", "gamma", "delta", "epsilon")[int(rng() * 5)]
                when = f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}T12:{number % 60:02d}:00Z"
                file.write(f"row-{number:08d},{category},{int(rng() * 100_000)},{rng() * 1000:.2f},{1 + int(rng() * 20)},{when}\n")


def _copied(table: Path, typed: Path) -> None:
    program = "import duckdb, sys; duckdb.sql(f\"COPY (FROM '{sys.argv[1]}') TO '{sys.argv[2]}' (FORMAT parquet)\")"
    subprocess.run([sys.executable, "-c", program, str(table), str(typed)], check=True, capture_output=True, timeout=LIMIT_S)


def text(recording: Recording) -> str:
    """A row for each task and file: seconds, how much of the engine's speed, memory and files."""
    found = {measure.name: measure for measure in recording.measures}
    body = []
    for name, measure in found.items():
        if not name.endswith(", time"):
            continue
        ours, engine, before = (measure.middle(who) for who in (FANOUT, ENGINE, BEFORE))
        if ours is None or engine is None:
            continue
        percent = 100 * engine / ours
        memory, files = (found[name.removesuffix("time") + kind].middle(FANOUT) or 0.0 for kind in ("memory", "files"))
        mark = (" ✓" if percent >= GOAL_PERCENT else " ✗") if ", 100 MB" in name else ""
        row = [name.removesuffix(", time"), f"{ours:.2f} s", f"{engine:.2f} s", f"{percent:.0f} %{mark}"]
        body.append([*row, f"{before:.1f} s, {before / ours:.0f} ×" if before else "–", f"{memory:.0f} MB", f"{files:.0f} MB"])
    head = ["task", FANOUT, ENGINE, f"of its speed (wanted at 100 MB: {GOAL_PERCENT} %)", "the code before", "peak memory", "peak of files"]
    return "\n".join([taken(recording), "", *grid(head, body), "", *conditions(recording)])


if __name__ == "__main__":
    main()
