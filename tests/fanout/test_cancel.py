"""`fanout cancel`: which lane an id belongs to, what is said of it, and what is refused before anything is written."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from batch.client.reading import lane_of
from batch.client.submission import Submission
from batch.client.submit import NewTask, submit_one
from batch.handling.cancels import KEPT_S, from_json
from batch.model.errors import DependencyUnavailable
from batch.model.message import new_task_id, rolling_shard
from batch.model.names import cancel_object, outcome_object, submission_object
from batch.model.outcomes import Outcome, to_line
from controller.observe.jobs import JobInfo
from fanout import cancel, pause
from tests.controller.fakes import World

Run = Callable[..., Result]


def submitted(here: World, lane: str = "bulk", *, close: bool = True) -> str:
    submission = Submission(lane=lane, topic=here.broker.topic("tasks"), store=here.store, clock=here.clock, rng=random.Random(1))
    submission.add([NewTask("t")] * 1001)
    if close:
        submission.close()
    return submission.submission_id


def listed(here: World, lane: str) -> list[str]:
    return [one.id for one in from_json(here.store.read(cancel_object(lane)))]


def task_of(shard: str) -> str:
    return new_task_id(random.Random(2), shard)


def single(here: World, lane: str = "default") -> str:
    return task_of(rolling_shard(lane, here.clock.now()))


def end(here: World, task_id: str, outcome: str) -> None:
    line = to_line(Outcome(task_id, "t", outcome, ""))
    here.store.write(outcome_object(task_id[17:], here.clock.now(), f"x-{outcome}", 0), line)


def test_a_closed_submission_and_its_tasks_are_in_its_lane(here: World, run: Run) -> None:
    submission_id = submitted(here)
    ids = [submission_id, task_of(submission_id)]
    result = run(cancel.command, *ids, "--why", "wrong input")
    assert (result.exit_code, listed(here, "bulk")) == (0, ids)
    assert result.output.startswith("cancelled in lane bulk: 2 ids; what has not started ends cancelled once its worker has read this")
    entry = from_json(here.store.read(cancel_object("bulk")))[0]
    assert (entry.at, entry.until, entry.why) == (here.clock.now(), here.clock.now() + KEPT_S, "wrong input")
    assert entry.who


def test_a_single_tasks_id_tells_its_lane(here: World, run: Run) -> None:
    task_id = single(here, "bulk")
    assert f"cancelled in lane bulk: {task_id};" in run(cancel.command, task_id).output
    assert listed(here, "bulk") == [task_id]


def test_a_task_with_a_key_is_in_the_lane_of_its_record(here: World, run: Run) -> None:
    keyed = NewTask("t", {}, "key-1")
    clock, rng = here.clock, random.Random(1)
    task_id, _ = submit_one(here.broker.topic("tasks"), keyed, lane="bulk", clock=clock, rng=rng, store=here.store)
    assert (run(cancel.command, task_id).exit_code, listed(here, "bulk")) == (0, [task_id])


def test_for_others_the_lane_must_be_named(here: World, run: Run) -> None:
    open_one = submitted(here, close=False)
    here.store.write(submission_object("s-odd"), b"{}")
    result = run(cancel.command, open_one, task_of(open_one), "6f0d3c1e-3b52-5d0a-9a64-0c6b3f0f4c11", "s-odd", "no id", single(here))
    assert (result.exit_code, here.store.names("cancel/")) == (2, ())
    assert result.output.count("with --lane") == 3
    assert f"submission {open_one} is not closed, so the lane is not known" in result.output
    assert "'no id' is no id of a task or submission" in result.output
    assert run(cancel.command, open_one, "--lane", "bulk").exit_code == 0
    assert listed(here, "bulk") == [open_one]


def test_a_wrong_lane_is_refused_and_a_lane_without_a_job_noted(here: World, run: Run) -> None:
    result = run(cancel.command, single(here), "--lane", "bulki")
    assert (result.exit_code, "did you mean bulk?" in result.output, here.store.names("cancel/")) == (2, True, ())
    result = run(cancel.command, single(here, "gone"))
    assert (result.exit_code, "note: there is no lane 'gone'" in result.output, len(listed(here, "gone"))) == (0, True, 1)


def test_on_a_paused_lane_they_stay_pending(here: World, run: Run) -> None:
    run(pause.pause, "default")
    assert "lane default is paused: its tasks stay pending until it drains" in run(cancel.command, single(here)).output


def test_without_the_jobs_it_is_not_known_whether_a_lane_is_paused(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> list[JobInfo]:
        raise DependencyUnavailable("503")

    monkeypatch.setattr(here.runner, "jobs", down)
    body = json.loads(run(cancel.command, single(here), "--json").output)
    assert (body["lanes"][0]["paused"], body["notes"]) == (None, ["whether a lane is paused is not known: 503"])


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (["succeeded"], "had ended before: succeeded, which stays so"),
        (["dead"], "is dead already, which stays so; if it is replayed from now on it runs"),
        (["dead", "succeeded"], "had ended before: succeeded"),
    ],
)
def test_what_has_ended_already_is_said(here: World, run: Run, outcomes: list[str], said: str) -> None:
    task_id = single(here)
    for one in outcomes:
        end(here, task_id, one)
    assert f"task {task_id} {said}" in run(cancel.command, task_id).output
    body = json.loads(run(cancel.command, task_id, "--json").output)
    assert body["ended"] == [{"task_id": task_id, "outcome": outcomes[-1]}]


def test_of_large_shards_it_is_not_looked_up(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_of, "MAX_OBJECTS", 0)
    task_id = single(here)
    end(here, task_id, "succeeded")
    assert "had ended" not in run(cancel.command, task_id).output


def test_a_file_of_ids_goes_into_an_object(here: World, run: Run, tmp_path: Path) -> None:
    shard = rolling_shard("default", here.clock.now())
    ids = [f"{number:016x}-{shard}" for number in range(500)]
    file = tmp_path / "ids.txt"
    file.write_text("\n".join((*ids, "", ids[0])))
    assert "cancelled in lane default: 500 ids;" in run(cancel.command, "--from-file", str(file)).output
    (name,) = here.store.names("cancel/default/")
    assert from_json(here.store.read(cancel_object("default")))[0].id_count == 500
    assert here.store.read(name).decode().split() == ids


def test_something_must_be_named(here: World, run: Run) -> None:
    assert run(cancel.command).exit_code == 2
