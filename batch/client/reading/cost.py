"""What a submission has cost so far, at list prices: the time of its workers, its messages, and the objects written for it.

A worker's time is shared by the tasks that it ended, by count. What is not known is left out, never guessed: the cost is a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from batch import prices
from batch.dead.lanes import LaneFacts
from batch.model.names import progress_folder
from batch.model.outcomes import PRECEDENCE
from batch.model.progress import Progress, from_metadata
from batch.services.ports import ObjectStore

AT_A_TIME = 16
MAX_EXECUTIONS = 500
"""Whose workers are looked at in one call."""
MESSAGE_BYTES = 1000
"""Messages are counted as of this size, published once and delivered once: nothing tells how large they were."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What an execution's workers have spent: seconds that they are billed for, and outcome lines that they have written. `ended`: every
    one has said that it ended, so neither will grow. `running`: the ids of tasks that the others named as running longest, and when (Unix
    seconds)."""

    billed_s: float
    line_count: int
    ended: bool
    running: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """`usd` is None where the size of the lane's workers is not known. `execution_count` executions took part; of `unknown_count` nothing
    tells the time. Workers cost `price_percent` of the list price."""

    usd: float | None
    worker_s: float
    vcpu_s: float
    gib_s: float
    message_count: int
    write_count: int
    execution_count: int
    unknown_count: int
    price_percent: float = prices.LIST_PERCENT

    def as_object(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "usd": None if self.usd is None else round(self.usd, 6),
            "worker_s": round(self.worker_s, 3),
            "vcpu_s": round(self.vcpu_s, 3),
            "gib_s": round(self.gib_s, 3),
            "message_count": self.message_count,
            "write_count": self.write_count,
            "execution_count": self.execution_count,
            "unknown_execution_count": self.unknown_count,
            "prices_of": prices.DATE,
            "price_percent": self.price_percent,
        }


def spent(tries: Iterable[Progress]) -> Spent:
    """By the progress of an execution's workers, all of their tries."""
    billed_s, line_count, ended, any_try = 0.0, 0, True, False
    running: list[tuple[str, float]] = []
    for one in tries:
        any_try = True
        billed_s += max(prices.WORKER_FLOOR_S, one.updated_at - one.started_at)
        line_count += sum(getattr(one, outcome) for outcome in PRECEDENCE)
        ended = ended and bool(one.exit_reason)
        running += [(task.task_id, one.updated_at) for task in one.running if not one.exit_reason]
    return Spent(billed_s, line_count, any_try and ended, tuple(running))


def usd_of(one: Spent, vcpu: float, memory_gib: float, price_percent: float = prices.LIST_PERCENT) -> float:
    """What the workers of an execution cost."""
    return one.billed_s * prices.worker_usd_per_s(vcpu, memory_gib, price_percent)


def all_spent(store: ObjectStore, executions: Iterable[str], known: dict[str, Spent]) -> dict[str, Spent]:
    """By execution. `known` keeps what is final, for the next call. Raises DependencyError."""
    asked = [name for name in executions if name not in known][:MAX_EXECUTIONS]
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="cost") as pool:
        found = dict(zip(asked, pool.map(lambda name: spent(_tries(store, name)), asked), strict=True))
    known.update({name: one for name, one in found.items() if one.ended})
    return {**known, **found}


def cost_of(
    lane: LaneFacts | None, written: Mapping[str, int], found: Mapping[str, Spent], *, message_count: int, write_count: int
) -> Cost:
    """`written`: the submission's outcome lines by execution; `found`: what these have spent."""
    worker_s = 0.0
    unknown_count = 0
    for name, line_count in written.items():
        one = found.get(name)
        if one is None or not one.billed_s:
            unknown_count += 1
        else:
            # A killed worker's counts lag behind its lines.
            worker_s += one.billed_s * line_count / max(one.line_count, line_count)
    vcpu, gib = (lane.vcpu, lane.memory_gib) if lane is not None else (0.0, 0.0)
    percent = prices.LIST_PERCENT if lane is None else lane.price_percent
    usd = worker_s * prices.worker_usd_per_s(vcpu, gib, percent)
    usd += message_count * 2 * MESSAGE_BYTES * prices.MESSAGE_BYTE_USD + write_count * prices.WRITE_USD
    counts = message_count, write_count, len(written), unknown_count
    return Cost(usd if vcpu else None, worker_s, worker_s * vcpu, worker_s * gib, *counts, price_percent=percent)


def _tries(store: ObjectStore, execution: str) -> Iterable[Progress]:
    for info in store.list(progress_folder(execution)):
        try:
            yield from_metadata(info.metadata)
        except ValueError:
            continue  # `fanout executions` names it
