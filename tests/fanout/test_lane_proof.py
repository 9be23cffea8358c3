"""`fanout proof --lane`: how many messages of a lane ended, in whole hours."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from click.testing import CliRunner

import fanout.cloud
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import NO_RULES
from batch.model.outcomes import Outcome, to_line
from batch.testing import MemoryObjectStore
from fanout.submission.proof import command

SINCE = ("--lane", "uploads", "--since", "2026-01-31T12:10", "--until", "2026-01-31T13:30")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryObjectStore:
    """A lane with 6 messages in two hours, and some of other hours and lanes."""
    found = MemoryObjectStore("bucket")
    write_lanes(found, {"uploads": LaneFacts("uploads", "uploads-sub", "uploads", NO_RULES, accept=("raw",), default_type="work")})
    write(found, "rolling-uploads-2026013112", "succeeded", "succeeded", "dead", "cancelled", again=True)
    write(found, "rolling-uploads-2026013113", "dead", "succeeded")
    write(found, "rolling-uploads-2026013111", "succeeded")
    write(found, "rolling-uploads-2026013114", "succeeded")
    write(found, "rolling-uploads-x-2026013112", "succeeded")
    monkeypatch.setattr(fanout.cloud, "open_store", lambda _project, _bucket: nullcontext(found))
    return found


def write(store: MemoryObjectStore, shard: str, *outcomes: str, again: bool = False) -> None:
    lines = [to_line(Outcome(f"{shard}-{number}", "work", one, "2026-01-31T15:00:00.000000Z")) for number, one in enumerate(outcomes)]
    lines += lines[:1] if again else []
    store.write(f"outcomes/{shard}/202601311500/x-0-0-0.jsonl", b"".join(lines))


def proof(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, arguments, env={"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "bucket"})
    return result.exit_code, result.output


def test_as_many_as_were_given_is_complete_and_it_says_that_it_is_by_count(store: MemoryObjectStore) -> None:
    code, text = proof(*SINCE, "--given", "6")
    assert code == 0
    assert text.splitlines() == [
        "lane uploads: complete by count, as many messages ended as were given (6)",
        "  of messages first published from 2026-01-31T12:00Z until 2026-01-31T14:00Z",
        "          6 given, as you say",
        "          3 succeeded",
        "          0 superseded",
        "          1 cancelled",
        "          2 dead",
        "          0 without an outcome",
        "this proof is by count, not by name: it says how many messages ended, not which did not",
    ]
    assert proof(*SINCE, "--given", "7")[0] == 1
    assert "1 message of 7 has no outcome yet" in proof(*SINCE, "--given", "7")[1]
    assert "6 messages ended, 1 more than were given" in proof(*SINCE, "--given", "5")[1]


def test_without_a_number_what_was_given_is_not_known(store: MemoryObjectStore) -> None:
    code, text = proof(*SINCE)
    assert code == 1
    assert text.startswith("lane uploads: 6 messages ended\n")
    assert "what the subscription was given is not known" in text


def test_what_a_replay_made_pending_has_not_ended(store: MemoryObjectStore) -> None:
    line = to_line(Outcome("rolling-uploads-2026013113-0", "work", "replayed", "2026-01-31T16:00:00.000000Z", replay_number=1))
    store.write("outcomes/rolling-uploads-2026013113/202601311600/x-0-0-1.jsonl", line)
    store.write("delayed/uploads-sub/1769875200-x-0123456789abcdef", b"")
    code, text = proof(*SINCE, "--given", "6", "--json")
    found = json.loads(text)
    assert (code, found["by"], found["complete"], found["pending_count"], found["ended_count"]) == (1, "count", False, 1, 5)
    assert (found["counts"]["dead"], found["delayed_count"]) == (1, 1)


def test_a_damaged_line_is_told(store: MemoryObjectStore) -> None:
    store.write("outcomes/rolling-uploads-2026013113/202601311600/x-0-0-1.jsonl", b"nonsense\n")
    code, text = proof(*SINCE, "--given", "6")
    assert code == 1
    assert "cannot be counted, its records are damaged" in text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--lane", "uploads"), "--lane needs --since"),
        (("--lane", "uploads", "--since", "2h", "s-1"), "no submission"),
        (("--lane", "uplods", "--since", "2h"), "lanes are: uploads"),
        (("--lane", "uploads", "--since", "32d"), "at most 31 days"),
        (("--lane", "uploads", "--since", "yesterday"), "2h"),
        (("s-1", "--given", "3"), "name a submission, or --lane"),
        ((), "name a submission"),
    ],
)
def test_what_makes_no_sense_is_refused(store: MemoryObjectStore, arguments: tuple[str, ...], problem: str) -> None:
    code, text = proof(*arguments)
    assert code == 2
    assert problem in text
