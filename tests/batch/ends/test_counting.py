"""Counts of a submission are those of its outcome lines, whether they are counted at once or read on from look to look."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.client.counting import Requests
from batch.ends.counting import NOTHING_SEEN, SETTLED_AFTER_S, ended_count, look_on, look_on_shard
from batch.model.names import manifest_object, outcome_object
from batch.model.outcomes import SUBMISSIONS, TOO_MANY, Outcome, counted, to_line
from batch.testing.objects import MemoryObjectStore

NOW = 1_800_000_000.0
ROLLING = "rolling-default-2027011508"


class Writer:
    """Writes outcome objects as workers do."""

    def __init__(self, shard: str) -> None:
        self.store, self.shard, self.count = MemoryObjectStore(), shard, 0

    def write(self, at: float, ended: list[tuple[str, str]], metadata: dict[str, str] | None = None) -> None:
        """Each task's outcome and submission."""
        lines = [
            to_line(Outcome(f"{submission_id}-{number}", "t", outcome, "now")) for number, (outcome, submission_id) in enumerate(ended)
        ]
        self.count += 1
        name = outcome_object(self.shard, at, "e-0-0", self.count)
        self.store.write(name, b"".join(lines), metadata=counted(self.shard, ended) if metadata is None else metadata)


@given(st.lists(st.tuples(st.integers(0, 7200), st.integers(0, int(SETTLED_AFTER_S)), st.sampled_from(["succeeded", "dead", "replayed"]))))
def test_reading_on_counts_what_counting_from_the_start_counts(written: list[tuple[int, int, str]]) -> None:
    """Also what is written up to five minutes after the time that its name tells."""
    writer, seen = Writer("s-1"), NOTHING_SEEN
    coming = sorted((at + late, at, outcome) for at, late, outcome in written)
    for written_s, at, outcome in coming:
        writer.write(NOW + at, [(outcome, "s-1")])
        seen = look_on(writer.store, "s-1", "s-1", seen, NOW + written_s)
        assert seen.counts == look_on(writer.store, "s-1", "s-1", NOTHING_SEEN, NOW + written_s).counts
    assert Counter(seen.counts) == Counter(outcome for _, _, outcome in coming)


def test_a_settled_minute_is_not_listed_again_for_an_hour() -> None:
    writer = Writer("s-1")
    for number in range(2000):
        writer.write(NOW, [("succeeded", "s-1")] * (1 + number % 2))
    asked = Requests(writer.store)
    seen = look_on(asked.store, "s-1", "s-1", NOTHING_SEEN, NOW + 400)
    assert (seen.counts, asked.count) == ({"succeeded": 3000}, 2)
    seen = look_on(asked.store, "s-1", "s-1", seen, NOW + 401)
    assert (seen.counts, asked.count) == ({"succeeded": 3000}, 3)
    writer.write(NOW, [("dead", "s-1")])  # hours late
    assert look_on(writer.store, "s-1", "s-1", seen, NOW + 3999).counts == {"succeeded": 3000}
    assert look_on(writer.store, "s-1", "s-1", seen, NOW + 4000).counts == {"succeeded": 3000, "dead": 1}


def test_submissions_that_share_a_shard_cost_one_listing() -> None:
    writer = Writer(ROLLING)
    writer.write(NOW, [("succeeded", f"s-{number}") for number in range(50)])
    writer.write(NOW + 1000, [("dead", "s-1"), ("succeeded", "another"), ("succeeded", "")])
    asked = Requests(writer.store)
    seen = look_on_shard(asked.store, ROLLING, {f"s-{number}": NOTHING_SEEN for number in range(50)}, NOW + 1000)
    assert asked.count == 1
    assert seen["s-1"].counts == {"succeeded": 1, "dead": 1}
    assert (seen["s-2"].counts, seen["s-2"].before, seen["s-2"].begun_s) == ({"succeeded": 1}, {"succeeded": 1}, NOW + 1000)


def test_in_the_shard_of_another_submission_its_objects_are_listed_and_not_read() -> None:
    """Tasks that were submitted there first, under the same idempotency keys: there may be a million."""
    writer = Writer("s-0")
    for _ in range(50):
        writer.write(NOW, [("succeeded", "s-0")] * 3)
    writer.write(NOW, [("succeeded", "s-0"), ("dead", "s-1")])
    asked = Requests(writer.store)
    assert look_on(asked.store, "s-1", "s-0", NOTHING_SEEN, NOW).counts == {"dead": 1}
    assert asked.count == 1


@pytest.mark.parametrize(("shard", "metadata"), [(ROLLING, {SUBMISSIONS: TOO_MANY}), (ROLLING, {"succeeded": "4"}), ("s-0", {})])
def test_where_metadata_does_not_tell_the_lines_of_its_own_tasks_are_counted(shard: str, metadata: dict[str, str] | None) -> None:
    """In another submission's shard lie tasks that were submitted there first, under the same idempotency key."""
    writer = Writer(shard)
    writer.write(NOW, [("succeeded", "s-1"), ("dead", "s-1"), ("succeeded", "s-0"), ("succeeded", "s-0")], metadata)
    manifest = "".join(json.dumps({"task_id": f"s-1-{number}", "shard": shard}) + "\n" for number in range(2)) + "odd\n"
    writer.store.write(manifest_object("s-1", 0), manifest.encode())
    assert look_on(writer.store, "s-1", shard, NOTHING_SEEN, NOW).counts == {"succeeded": 1, "dead": 1}


def test_a_replayed_task_has_not_ended() -> None:
    assert ended_count({"succeeded": 2, "superseded": 1, "cancelled": 1, "dead": 3, "replayed": 2}) == 5
    assert ended_count({"replayed": 1}) == 0
