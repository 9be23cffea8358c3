"""The parts of the demo that decide: what it submits, whom it kills, and that its verdict can be a bad one."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import replace
from pathlib import Path

import pytest

from batch.client.proof import Proof
from batch.client.submit import check_by
from batch.handling.registry import load_handlers
from batch.model.errors import SettingsError
from batch.model.progress import Progress
from controller.lanes.manifests import broken_rules
from controller.lanes.rules import Home
from controller.model.execution import ExecutionInfo, Worked
from controller.model.lane import Lane
from controller.model.reading import Value
from fanout.apply import PACKAGED_JOBS_FILE
from fanout.demo.display import Screen, bar, console
from fanout.demo.result import Result, problems
from fanout.demo.run import candidates
from fanout.demo.setup import BUCKET, demo_manifests
from fanout.demo.snapshot import LaneSnapshot, Snapshot
from fanout.demo.workload import COLUMNS, UNKNOWN_TYPE, SourceFile, facts, source_files, workloads
from local_cloud.supervisor.workers import RunningWorker

FILES = [SourceFile(f"stdlib/m{number}.py", Path(f"m{number}.py")) for number in range(50)]
LANE = Lane("default", "projects/local/locations/us-central1/jobs/default", "default", "default")
INFO = ExecutionInfo(f"{LANE.job}/executions/default-abcde", 2, 1.0, completed_at=9.0, succeeded_count=2, env={"BACKLOG": "21"})
DONE = Progress(11, 1.0, 5.0, taken=11, acked=11, succeeded=11, exit_reason="share_done")
HALF = Progress(10, 1.0, 5.0, taken=9, acked=4, succeeded=4)
REST = Progress(6, 6.0, 9.0, taken=6, acked=6, succeeded=6, exit_reason="share_done")
GOOD = Worked(INFO, {0: [DONE], 1: [HALF, REST]})
COUNTS = {"succeeded": 20, "superseded": 0, "cancelled": 0, "dead": 1}
PROOF = Proof("s-1", closed=True, submitted_count=21, counts=COUNTS)
VICTIM = RunningWorker(1, "default", "default-abcde", 1, 0)


def result(worked: Worked = GOOD, proof: Proof = PROOF, victims: tuple[RunningWorker, ...] = (VICTIM,)) -> Result:
    return Result((proof,), (LaneSnapshot(LANE, 21, None, (worked,)),), kill_wanted=True, victims=victims)


def tried(index: int, *tries: Progress) -> Worked:
    return Worked(INFO, {**GOOD.tries, index: list(tries)})


def test_a_good_outcome_has_no_problem() -> None:
    assert problems(result()) == []


def test_where_the_minute_is_paid_for_a_worker_may_take_as_much_as_its_lane_allows() -> None:
    def took(count: int, **env: str) -> list[str]:
        info = replace(INFO, env={**INFO.env, "SHARE_LIMIT": "11", **env})
        return problems(result(replace(GOOD, info=info, tries={0: [DONE], 1: [HALF, replace(REST, taken=count)]})))

    assert took(11, BILLING_FLOOR_S="20") == []
    assert took(12, BILLING_FLOOR_S="20") == ["worker 1 of default-abcde, try 1: it took 12 messages, its share is 6"]
    assert took(7, BILLING_FLOOR_S="0") == ["worker 1 of default-abcde, try 1: it took 7 messages, its share is 6"]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (result(proof=replace(PROOF, counts=COUNTS | {"succeeded": 19}, missing=("t-9",))), "task t-9 has no outcome"),
        (result(proof=replace(PROOF, counts=COUNTS | {"succeeded": 19})), "21 tasks were submitted, but 20 outcomes"),
        (result(proof=replace(PROOF, counts=COUNTS | {"succeeded": 19, "dead": 2})), "2 tasks are dead where 1"),
        (result(proof=replace(PROOF, closed=False)), "is not closed"),
        (result(proof=replace(PROOF, problems=("a manifest is gone",))), "a manifest is gone"),
        (result(tried(0, replace(DONE, taken=12))), "it took 12 messages, its share is 11"),
        (result(tried(0, replace(DONE, share=12))), "its share is 12, must be 11"),
        (result(tried(0, replace(DONE, share=12))), "shares of its workers sum to 22, it was launched for 21"),
        (result(tried(1, HALF, replace(REST, share=10))), "try 1: its share is 10, must be 6"),
        (result(tried(0)), "worker 0 of default-abcde has written no progress"),
        (result(tried(1, HALF)), "no retry of it has written progress"),
        (result(tried(1, replace(HALF, exit_reason="stopped"), REST)), "was killed and yet says stopped"),
        (result(victims=()), "no worker could be killed"),
    ],
)
def test_what_does_not_hold_is_named(bad: Result, problem: str) -> None:
    assert any(problem in one for one in problems(bad)), problems(bad)


def test_only_a_worker_in_the_middle_of_its_first_try_is_killed() -> None:
    live = replace(INFO, completed_at=None, succeeded_count=0)

    def chosen(*tries: Progress) -> int:
        return len(candidates(LaneSnapshot(LANE, 21, None, (Worked(live, {0: list(tries)}),)).tries))

    assert chosen(HALF) == 1
    assert chosen(replace(HALF, acked=0)) == 0
    assert chosen(replace(HALF, acked=8)) == 0
    assert chosen(DONE) == 0
    assert chosen(HALF, HALF) == 0


def test_every_task_but_one_passes_the_door() -> None:
    check = check_by(load_handlers(["batch.handlers"]), unknown_types=True)
    registry = load_handlers(["batch.handlers"])
    unknown = []
    for load in workloads(FILES, unhurried=True):
        for task in load.tasks:
            check(task)
            unknown += [task.task_type] if task.task_type not in registry else []
    assert unknown == [UNKNOWN_TYPE]
    default = workloads(FILES)[0]
    assert (len(default.tasks), default.share) == (50, 10)
    assert {task.fields["operation"] for task in default.tasks} == {"describe", "checksum", "compress"}
    assert len({task.fields["filename"] for task in default.tasks}) == 50


def test_the_jobs_get_the_demo_s_shares_and_settings() -> None:
    manifests = demo_manifests(PACKAGED_JOBS_FILE.read_text(), workloads(FILES), "local")
    assert {one.env["BILLING_FLOOR_S"] for one in manifests} == {"0"}, "each worker ends with its own share"
    assert {one.lane: one.policy.max_messages for one in manifests} == {load.lane: load.share for load in workloads(FILES)}
    assert all(one.env["BUCKET_NAME"] == BUCKET and one.env["GOOGLE_CLOUD_PROJECT"] == "local" for one in manifests)
    assert [problem for one in manifests for problem in broken_rules(one, Home("local", BUCKET))] == []
    text = PACKAGED_JOBS_FILE.read_text().replace("fanout-lane: urgent", "fanout-lane: other")
    with pytest.raises(SettingsError, match="lane urgent"):
        demo_manifests(text.replace("{name: LANE, value: urgent}", "{name: LANE, value: other}"), workloads(FILES), "local")


def test_source_files_prefer_the_library_proper_and_repeat_by_seed(tmp_path: Path) -> None:
    for name in ("a.py", "b/c.py", "test/t1.py", "test/t2.py", "site-packages/x.py", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("def f():\n    pass\n")

    def names(count: int, seed: int = 1) -> list[str]:
        return [file.name for file in source_files(count, random.Random(seed), tmp_path)]

    assert names(2) == ["stdlib/a.py", "stdlib/b/c.py"]
    assert names(9) == ["stdlib/a.py", "stdlib/b/c.py", "stdlib/test/t1.py", "stdlib/test/t2.py"]
    assert names(3) == names(3)
    assert len(names(1)) == 1


def test_facts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text("class A:\n    def f(self):\n        pass\n\n    async def g(self):\n        pass\n")
    rows = list(csv.reader(io.StringIO(facts([SourceFile("stdlib/p/m.py", path), SourceFile("stdlib/m.py", path)]).decode(), newline="")))
    assert rows == [list(COLUMNS), ["stdlib/p/m.py", "p", str(path.stat().st_size), "6", "2", "1"], ["stdlib/m.py", "-", *rows[1][2:]]]


def test_the_plain_screen_tells_each_quarter_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(console(plain=True))
    for acked in (1, 5, 5, 6, 21):
        running = Worked(replace(INFO, completed_at=None), {0: [replace(DONE, acked=acked)]})
        screen.show(Snapshot(1.0, (LaneSnapshot(LANE, 21, Value(3, 1.0), (running,)),)))
    assert [line.split()[-4] for line in capsys.readouterr().out.splitlines()] == ["6", "21"]


def test_a_bar_is_full_only_at_the_end() -> None:
    assert bar(99, 100, 10) == "█" * 9 + "·"
    assert bar(100, 100, 10) == "█" * 10
    assert bar(0, 0, 2) == "██"
