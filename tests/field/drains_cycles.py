"""A worker of its own process, on the in-memory twins, whose handlers make objects that only Python's garbage collector can free, as
parsers and tables do: prints the most memory that it had, in MB.

    python -m tests.field.drains_cycles <kind of handler> <tuned or default> <tasks> <documents a task>
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

from batch.handling.registry import Registry
from batch.memory import collect_seldom, give_large_blocks_back
from bench.worker.process import peak_of
from tests.batch.worker.plant import Plant

NODES, TEXT_BYTES = 5_000, 1_500


class Node:
    """Of a document: it knows its parent, and its parent knows it."""

    def __init__(self, parent: Node | None) -> None:
        self.parent = parent
        self.children: list[Node] = []
        self.text = "x" * TEXT_BYTES
        if parent is not None:
            parent.children.append(self)


def document() -> Node:
    """About 10 MB."""
    root = Node(None)
    for number in range(NODES):
        Node(root if number % 10 == 0 else root.children[-1])
    return root


def registry(documents: int) -> Registry:
    made = Registry()

    def parse() -> int:
        return sum(len(document().children) for _ in range(documents))

    @made.task("plain")
    def plain(task: Any, ctx: Any) -> int:
        return parse()

    @made.task("async")
    async def on_the_loop(task: Any, ctx: Any) -> int:
        return parse()

    @made.task("group", group=4, group_wait_s=0.01)
    def group(tasks: Any, ctxs: Any) -> list[int]:
        return [parse() for _ in tasks]

    return made


def main(kind: str, tuned: str, tasks: int, documents: int) -> None:
    plant = Plant(registry=registry(documents))
    plant.submit(tasks, kind)
    worker = plant.worker(BACKLOG=tasks)
    give_large_blocks_back()
    if tuned == "tuned":
        collect_seldom()
    else:
        gc.collect()
    worker.run()
    assert list(plant.final().values()) == ["succeeded"] * tasks
    # Not what `getrusage` says: that is at least what the process that started this one had.
    print(round(peak_of(Path("/proc/self/status").read_text())))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
