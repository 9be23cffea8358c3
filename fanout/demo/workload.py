"""What the demo submits: one submission a lane, and how many messages one of the lane's workers may take. Pure.

Exactly one task can never succeed: it shows that a dead letter has a reason and is counted by the proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from batch.client.submit import NewTask
from fanout.demo.corpus import FACTS, SourceFile

WORKERS = {"default": 5, "urgent": 1, "bulk": 2}
"""Two cores are enough for these, and their start-up does not take longer than their work."""
CONCURRENCY = 8
"""Tasks that one worker runs at a time."""
UNKNOWN_TYPE = "file_procesing"
"""A typing error, as a client makes it."""
UNHURRIED_S = 6.0
"""How long a worker of the default lane is to be busy at least where one of them is to be killed in the middle."""


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
