"""Parts of a submission: the tasks that share a manifest and are published together, and how large a part may be."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from batch.client.closing import SHARDS
from batch.model.delivery import Outgoing
from batch.model.message import ROLLING_BELOW, rolling_shard, shard_in_id

TASKS_PER_PART = 1000
MAX_PART_BYTES = 32_000_000
"""A part is held in memory until it is published; so are the first tasks while their shard is not known."""
MAX_SHARDS_BYTES = 4000
"""Of metadata; the manifest's lines name the shards, too."""


class Prepared(NamedTuple):
    """A task that can travel. `position` and `key` (None without one) are its client's; `attributes` are not shared."""

    position: int
    data: bytes
    attributes: dict[str, str]
    key: str | None

    @property
    def message(self) -> Outgoing:
        """What is published."""
        return Outgoing(self.data, self.attributes)

    def to_shard(self, shard: str) -> Prepared:
        """With the outcome shard of its submission, which is known only now: a small one's ids lead to the rolling shard."""
        if self.attributes["shard"] == shard:
            return self
        task_id = self.attributes["task_id"]
        self.attributes["shard"] = shard
        if shard == self.attributes["submission_id"] or shard_in_id(task_id) is None:
            return self
        moved = f"{task_id[:16]}-{shard}"
        self.attributes["task_id"] = moved
        # The id begins with random digits, which no client can have put into its fields.
        return self._replace(data=self.data.replace(task_id.encode(), moved.encode()))


@dataclass(slots=True)
class Part:
    """`manifest` is None until it is known which tasks the records of idempotency keys let pass. `attempted`: some may be published;
    `published`: an earlier try has published all."""

    number: int
    tasks: list[Prepared]
    manifest: bytes | None = None
    shards: dict[str, None] = field(default_factory=dict)
    attempted: bool = False
    published: bool = False

    def write_down(self, tasks: list[Prepared]) -> None:
        """Make the manifest, of these tasks."""
        self.tasks = tasks
        self.manifest = "".join(map(_line, tasks)).encode()
        self.shards = dict.fromkeys(one.attributes["shard"] for one in tasks)

    @property
    def metadata(self) -> dict[str, str]:
        """Of the manifest: what a listing tells of the part."""
        shards = ",".join(self.shards)
        return {"tasks": str(len(self.tasks)), **({SHARDS: shards} if len(shards) <= MAX_SHARDS_BYTES else {})}

    @property
    def positions(self) -> tuple[int, int]:
        """Of the first task and the last."""
        return self.tasks[0].position, self.tasks[-1].position


def _line(one: Prepared) -> str:
    """Ids and shards need no escapes."""
    told = one.attributes
    return f'{{"task_id":"{told["task_id"]}","task_type":{_quoted(told["task_type"])},"shard":"{told["shard"]}"}}\n'


@lru_cache(maxsize=256)
def _quoted(text: str) -> str:
    return json.dumps(text)


def choose_shard(submission_id: str, lane: str, count: int, unix_s: float, *, ended: bool) -> str:
    """Where the outcomes go: small submissions share their hour's shard, others, and those of unknown length, have one of their own."""
    return rolling_shard(lane, unix_s) if ended and count < ROLLING_BELOW else submission_id


def part_is_full(count: int, size: int, next_size: int, tasks_per_part: int = TASKS_PER_PART) -> bool:
    """Whether a part of `count` tasks and `size` bytes must be closed before one of `next_size` bytes joins it."""
    return count >= tasks_per_part or (count > 0 and size + next_size > MAX_PART_BYTES)
