"""The names of what is recorded: measuring and reading a recording use the same ones."""

from __future__ import annotations

GOOGLE, LOCAL = "Google's emulator", "local cloud"
SERVERS = (GOOGLE, LOCAL)
DELAYS_MS = (0, 5, 50)
"""Added to each round trip."""

THREADS, PLACES = 32, 200
SMALL, LARGE, MILLION = 10_000, 200_000, 1_000_000
START, CPU, START_CPU, MEMORY, TIME_CENTS, CPU_CENTS = (
    "from the start of the process",
    "processor time a message, start not counted",
    "processor time of the start",
    "peak memory",
    "Cloud Run, a million tasks at this rate",
    "Cloud Run, processor time of a million tasks alone",
)
TO_PULL, TO_PULL_SHIPPED, TO_IMPORT, TO_PYTHON = (
    "first pull",
    "first pull, `batch.handlers` loaded",
    "`from google.cloud import pubsub_v1`",
    "Python alone",
)
STARTS = (TO_PULL, TO_PULL_SHIPPED, TO_IMPORT, TO_PYTHON)
WAIT_THREADS, WAIT_ASYNC = f"20 ms handler, {THREADS} threads", f"20 ms handler, {PLACES} async places"
TAIL, TAIL_PART = "last of 8 workers after the median", "the same, of the drain"
DRAIN = "drain by 8 workers"
FILES, FILES_CPU = "tasks that read 10 KB and write a report", "processor time of such a task, start not counted"


def speed(server: str, delay_ms: int) -> str:
    """Messages a second of the contenders."""
    return f"{server}, +{delay_ms} ms" if delay_ms else server


def on(name: str, server: str) -> str:
    """A measure of the contenders that one server's runs give besides their speed."""
    return f"{name}, {server}"


def memory(backlog: int) -> str:
    """Peak memory of a worker that takes a backlog of so many."""
    return f"peak memory, {backlog:,} messages"
