"""`fanout status`, `wait`, `outcomes`, and `submit` with an end: what a person reads, and how each command ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner, Result

import fanout.cloud
from batch.client.reading.progress import SubmissionState
from batch.client.stored_proof import proof_of, read_stored
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import NO_RULES
from batch.ends import marks
from batch.model.names import outcome_folder, submission_object
from batch.testing import MemoryBroker
from fanout.submission import following, outcomes, submit
from fanout.submission.target import Target
from tests.batch.submitted import Submitted
from tests.fanout.test_commands import documented

Run = Callable[..., Result]


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Submitted:
    found = Submitted(150)
    write_lanes(found.store, {"default": LaneFacts("default", "default-sub", "default", NO_RULES, 1.0, 0.5)})
    monkeypatch.setattr(fanout.cloud, "open_store", lambda _project, _bucket: nullcontext(found.store))
    monkeypatch.setattr(fanout.cloud, "open_topic", lambda _project, name: nullcontext(MemoryBroker(found.clock).topic(name)))
    monkeypatch.setattr(submit, "look_at", lambda *_arguments: Target())
    monkeypatch.setattr(following, "SystemClock", lambda: found.clock)
    return found


def run(command: click.Command, *arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(command, arguments, env={"GOOGLE_CLOUD_PROJECT": "p", "BUCKET_NAME": "b"}, input=text)


def test_status_says_how_far_it_is(one: Submitted) -> None:
    one.write(one.outcome(task_id) for task_id in one.ids[:60])
    result = run(following.status, one.submission_id)
    assert (result.exit_code, result.stdout.splitlines()[:6]) == (
        0,
        [
            f"submission {one.submission_id}: running, about 60 of 150 ended",
            "         60 succeeded",
            "          0 superseded",
            "          0 cancelled",
            "          0 dead",
            "         90 pending",
        ],
    )
    assert "tasks a second in the last minutes, so it ends about 2026-01-01T" in result.stdout
    assert "cost so far: $0.0000, 0 worker seconds, without 1 execution whose time is not known" in result.stdout


def test_every_key_of_status_stands_in_its_help(one: Submitted) -> None:
    body = json.loads(run(following.status, one.submission_id, "--json").stdout)
    assert {*body, *body["cost"]} - documented(following.status) == set()


def test_an_unknown_submission_ends_each_with_1(one: Submitted) -> None:
    for command in (following.status, following.wait, outcomes.command):
        result = run(command, "s-none")
        assert (result.exit_code, "there is no submission s-none in bucket memory" in result.output) == (1, True)


def test_wait_proves_the_end_and_ends_with_0(one: Submitted) -> None:
    looks: list[float] = []
    wait = one.clock.wait

    def waited(event: object, timeout_s: float) -> bool:
        looks.append(timeout_s)
        at = 50 * (len(looks) - 1)
        one.write(map(one.outcome, one.ids[at : at + 50]))
        return wait(event, timeout_s)  # type: ignore[arg-type]

    one.clock.wait = waited  # type: ignore[method-assign]
    result = run(following.wait, one.submission_id)
    assert (result.exit_code, len(looks)) == (0, 3), result.output
    assert f"submission {one.submission_id}: running, about 50 of 150 ended" in result.stderr
    assert f"submission {one.submission_id}: complete, 150 of 150 ended" in result.stdout
    assert read_stored(one.store, one.submission_id) is not None


def test_wait_ends_with_1_where_tasks_are_dead_and_with_3_when_the_time_is_over(one: Submitted) -> None:
    one.write(map(one.outcome, one.ids[1:]))
    result = run(following.wait, one.submission_id, "--timeout", "5m")
    assert (result.exit_code, "the time is over" in result.stderr) == (following.EXIT_TIMEOUT, True)
    one.write([one.outcome(one.ids[0], "dead")])
    result = run(following.wait, one.submission_id, "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (1, SubmissionState.FAILED)
    assert run(following.wait, one.submission_id, "--timeout", "5").exit_code == 2


def test_wait_proves_anew_only_when_more_was_written_or_a_minute_is_over(one: Submitted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated lines suggest an end that is none."""
    one.write(map(one.outcome, one.ids[:100]))
    one.write(map(one.outcome, one.ids[:100]))
    proofs: list[float] = []

    def noted(*arguments: object) -> object:
        proofs.append(one.clock.now())
        return proof_of(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(following, "proof_of", noted)
    assert run(following.wait, one.submission_id, "--timeout", "130s").exit_code == 3
    assert len(proofs) == 3


def test_outcomes_are_printed_as_they_were_written(one: Submitted) -> None:
    one.write(one.outcome(task_id, "dead") for task_id in one.ids[:2])
    one.write(one.outcome(task_id) for task_id in one.ids[2:])
    one.write([replace(one.outcome(one.ids[0], "replayed"), replay_number=1)])
    written = b"".join(one.store.read(name) for name in one.store.names(outcome_folder(one.shard)))
    assert run(outcomes.command, one.submission_id).stdout_bytes == written
    dead = run(outcomes.command, one.submission_id, "--outcome", "dead").stdout.splitlines()
    assert [json.loads(line)["task_id"] for line in dead] == one.ids[:2]
    assert len(run(outcomes.command, one.submission_id, "--final").stdout.splitlines()) == 149
    assert run(outcomes.command, one.submission_id, "--type", "other").stdout == ""


LINES = '{"task_type": "data_transformation", "transformation": "normalize"}\n' * 3


def test_submit_writes_down_what_is_to_happen_at_the_end(one: Submitted) -> None:
    ends = ("--on-complete", '{"webhook": "https://example.com/done"}', "--tolerate-count", "2")
    result = run(submit.command, "-", "--json", "--topic", "default", *ends, text=LINES)
    submission_id = json.loads(result.stdout)["submission_id"]
    read = marks.read(one.store, "default", submission_id)
    assert read is not None
    assert (read[1].on_complete, read[1].tolerate.count) == ({"webhook": "https://example.com/done"}, 2)
    assert json.loads(one.store.read(submission_object(submission_id)))["ends"]["tolerate"] == {"count": 2}
    assert "what is to happen at its end waits for it" in run(following.status, submission_id).stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--on-complete", "{"], "--on-complete is not JSON"),
        (["--on-complete", "{}"], "on_complete must name either a task_type or a webhook"),
        (["--on-failure", '{"task_type": "unheard-of"}'], "on_failure"),
        (["--tolerate-percent", "101"], "--tolerate-percent"),
    ],
)
def test_an_end_that_cannot_happen_is_refused_before_anything_is_published(one: Submitted, options: list[str], said: str) -> None:
    before = one.store.names()
    result = run(submit.command, "-", "--topic", "default", *options, text=LINES)
    assert (result.exit_code, said in result.output, one.store.names()) == (2, True, before), result.output


def test_an_end_goes_with_a_submission_only(one: Submitted) -> None:
    result = run(submit.command, "--task-type", "x", "--any-type", "--tolerate-count", "1")
    assert (result.exit_code, "not with a single task" in result.output) == (2, True)
