"""What the demo works on: source files of the Python standard library, a table of facts about them, and the tasks of each lane. Pure, but
for reading those files.

Exactly one task is wrong on purpose: it shows that a dead letter has a reason and is counted by the proof.
"""

from __future__ import annotations

import csv
import io
import random
import re
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from batch.client.submit import NewTask

FACTS = "input/facts.csv"
COLUMNS = ("path", "package", "bytes", "lines", "functions", "classes")
WORKERS = {"default": 5, "urgent": 1, "bulk": 2}
"""Two cores are enough for these, and their start-up does not take longer than their work."""
CONCURRENCY = 8
"""Tasks that one worker runs at a time."""
UNKNOWN_TYPE = "file_procesing"
"""A typing error, as a client makes it."""
ON_PURPOSE = f"one is wrong on purpose: no handler knows its task_type {UNKNOWN_TYPE!r}, so it has to end dead, with that reason"
UNHURRIED_S = 6.0
"""How long a worker of the default lane is to be busy at least where one of them is to be killed in the middle."""

_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}
_TESTS = {"test", "tests", "idlelib", "idle_test", "lib2to3"}
_FUNCTION = re.compile(rb"^[ \t]*(?:async[ \t]+)?def[ \t]", re.MULTILINE)
_CLASS = re.compile(rb"^[ \t]*class[ \t]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """`name` is what clients call it: the object is `input/<name>`."""

    name: str
    path: Path


def source_files(count: int, rng: random.Random, root: Path | None = None) -> list[SourceFile]:
    """At most `count` files, by name. The library proper comes first; its tests only fill up what is missing. Of more files than wanted
    a sample is drawn."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    proper: list[Path] = []
    tests: list[Path] = []
    for path in sorted(root.rglob("*.py")):
        parts = set(path.relative_to(root).parts[:-1])
        if not parts & _LEFT_OUT and path.is_file():
            (tests if parts & _TESTS else proper).append(path)
    chosen = sampled(proper, count, rng)
    chosen += sampled(tests, count - len(chosen), rng)
    return [SourceFile(f"stdlib/{path.relative_to(root).as_posix()}", path) for path in sorted(chosen)]


def sampled(paths: Sequence[Path], count: int, rng: random.Random) -> list[Path]:
    return list(paths) if len(paths) <= count else rng.sample(paths, max(0, count))


def facts(files: Iterable[SourceFile]) -> bytes:
    """A CSV with one row a file; `package` is the first folder, or `-` for a module at the top."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for file in files:
        data = file.path.read_bytes()
        parts = file.name.split("/")
        package = parts[1] if len(parts) > 2 else "-"
        writer.writerow([file.name, package, len(data), data.count(b"\n"), len(_FUNCTION.findall(data)), len(_CLASS.findall(data))])
    return text.getvalue().encode()


@dataclass(frozen=True, slots=True)
class Workload:
    """The tasks of one lane; `share` is the most messages that one of its workers takes."""

    lane: str
    tasks: tuple[NewTask, ...]

    @property
    def share(self) -> int:
        return max(1, ceil(len(self.tasks) / WORKERS[self.lane]))


def workloads(files: Sequence[SourceFile], *, unhurried: bool = False) -> list[Workload]:
    """One for each lane. `unhurried`: every file waits a little before it is processed, so that a worker is busy when it is killed."""
    share = ceil(len(files) / WORKERS["default"])
    wait_s = round(UNHURRIED_S * CONCURRENCY / max(1, share), 3) if unhurried else 0.0
    return [
        Workload("default", tuple(_file_task(at, file, wait_s) for at, file in enumerate(files))),
        Workload("urgent", tuple(_table_tasks())),
        Workload("bulk", (*_generated_tasks(min(120, max(20, len(files) // 10))), NewTask(UNKNOWN_TYPE, {"filename": files[0].name}))),
    ]


def _file_task(at: int, file: SourceFile, wait_s: float) -> NewTask:
    """Most are described, every tenth is compressed, every seventh digested."""
    operation = "compress" if at % 10 == 9 else "checksum" if at % 7 == 6 else "describe"
    waiting = {"processing_time": wait_s} if wait_s else {}
    return NewTask("file_processing", {"filename": file.name, "operation": operation, **waiting})


def _table_tasks() -> list[NewTask]:
    """The table of facts, normalized and summed up in several ways."""
    columns = ("bytes", "lines", "functions", "classes")
    made = [{"transformation": "normalize", "method": method, "columns": list(columns)} for method in ("z-score", "min-max")]
    made += [{"transformation": "normalize", "method": "z-score", "columns": [column]} for column in columns]
    made += [{"transformation": "aggregation", "group_by": "package", "values": [column]} for column in columns]
    made += [{"transformation": "aggregation", "group_by": "package", "values": list(columns)}]
    return [NewTask("data_transformation", {"source": FACTS, **fields}) for fields in made]


def _generated_tasks(count: int) -> list[NewTask]:
    return [
        NewTask(
            "data_transformation",
            {"transformation": "aggregation" if seed % 2 else "normalize", "dataset_size": 500, "seed": seed},
        )
        for seed in range(count)
    ]
