"""The benchmark of the worker: its arithmetic, what it says of a recording, how it watches a program, and that it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from batch.handling.registry import default_registry, load_handlers
from batch.model.message import decode
from bench.page import PAGE, RESULTS, block
from bench.recording import Measure, Recording, read
from bench.worker import lane
from bench.worker import measures as m
from bench.worker.contenders import BARE, CLIENT, CONTENDERS, FANOUT, GROUPED, SUBSCRIBE, URLLIB3, Run
from bench.worker.handlers import module_of
from bench.worker.price import dollars_per_million
from bench.worker.process import cpu_of, json_of, peak_of, started
from bench.worker.report import Goal, goals, text
from bench.worker.tail import after_median_s
from tests.support import clean_environment

ROOT = Path(__file__).resolve().parents[2]
NOT_YET = "Not measured yet."


def recording(*measures: Measure) -> Recording:
    return Recording("python -m bench.worker", "2026-01-02T03:04:05Z", 0.5, {"cores": "2"}, list(measures), ["A note."])


def speed(server: str, delay_ms: int = 0, **runs: list[float]) -> Measure:
    names = {"fanout": FANOUT, "grouped": GROUPED, "subscribe": SUBSCRIBE, "bare": BARE}
    return Measure(m.speed(server, delay_ms), "messages/s", "", {names[who]: values for who, values in runs.items()})


def goal(found: list[Goal], start: str) -> Goal:
    return next(one for one in found if one.name.startswith(start))


@pytest.mark.parametrize("name", ["worker", "worker_million", "worker_files"])
def test_the_docs_show_what_was_recorded(name: str) -> None:
    recorded = RESULTS / f"{name}.json"
    shown = text(read(recorded)) if recorded.is_file() else NOT_YET
    command = "python -m bench.worker" + name.removeprefix("worker").replace("_", " --")
    assert block(name, shown) in PAGE.read_text(encoding="utf-8"), f"run `{command}`"


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which the machine was slow is slow for both."""
    found = goals(recording(speed(m.GOOGLE, fanout=[20_000, 5_000, 22_000], subscribe=[2_000, 500, 1_000])))
    assert goal(found, "N1 worker ÷ `subscribe()`").values == {m.GOOGLE: [10.0, 10.0, 22.0], m.LOCAL: []}


def test_a_ratio_with_a_missing_round_is_that_of_the_medians() -> None:
    found = goals(recording(speed(m.LOCAL, grouped=[30_000, 10_000, 20_000], bare=[40_000, 40_000])))
    assert goal(found, "N2").values[m.LOCAL] == [50.0]


def test_goals_say_what_was_wanted_and_whether_it_was_met() -> None:
    memory = [Measure(m.memory(count), "MB", "", {m.GOOGLE: [mb]}) for count, mb in ((m.SMALL, 100.0), (m.LARGE, 120.0))]
    starts = Measure(m.START, "s", "", {m.TO_PULL: [0.6], m.TO_IMPORT: [0.5]})
    found = goals(recording(*memory, starts))
    assert [one.name for one in found] == [
        "N4 first pull ÷ import of the client",
        "N5 memory, 200,000 ÷ 10,000 messages",
        "N5 memory, 200,000 messages",
    ]
    assert [one.wanted for one in found] == ["≤ 1.5 ×", "≤ 1.1 ×", "≤ 130 MB"]
    assert [one.said(m.GOOGLE) for one in found] == ["1.20 × ✓", "1.20 × ✗", "120 MB ✓"]
    assert found[1].said(m.LOCAL) == "–"


def test_a_task_with_files_is_to_cost_little() -> None:
    files = [Measure(m.on(name, m.LOCAL), "", "", {FANOUT: [value]}) for name, value in ((m.FILES_CPU, 1_201.0), (m.FILES, 700.0))]
    found = goals(recording(*files))
    assert [one.said(m.LOCAL) for one in found] == ["1,201 µs ✗", "700 tasks/s ✓"]
    shown = text(recording(*files)).splitlines()
    assert f"| {m.FILES}, local cloud |  | 700 | – | – |" in shown
    assert "The worker by itself:" not in shown


def test_the_report_has_every_measure_once() -> None:
    costs = Measure(m.on(m.CPU, m.GOOGLE), "µs", "", {FANOUT: [25.0]})
    tail = Measure(m.TAIL, "s", "", {m.GOOGLE: [1.0], m.LOCAL: [2.0]})
    starts = Measure(m.START, "s", "", {m.TO_PYTHON: [0.03]})
    shown = text(recording(speed(m.GOOGLE, 0, fanout=[20_000]), speed(m.GOOGLE, 50, bare=[900]), costs, tail, starts))
    lines = shown.splitlines()
    for line in (
        "| Google's emulator | messages/s | 20,000 | – | – | – | – | – |",
        "| Google's emulator, +50 ms | messages/s | – | – | – | – | – | 900 |",
        f"| {m.CPU}, Google's emulator | µs | 25.00 | – | – | – | – | – |",
        f"| {m.TAIL} | s | 1.00 | 2.00 |",
        f"| {m.START} | s | – | – | – | 0.03 |",
        "| … or | ≤ 2 s | 1.00 s ✓ | 2.00 s ✓ |",
        "Machine: cores 2; load before the start 0.5.",
        "A note.",
    ):
        assert lines.count(line) == 1, f"{line}\n{shown}"


def test_a_run_counts_the_processor_time_after_the_start() -> None:
    run = Run(count=1_000, seconds=0.5, cpu_s=0.02, start_cpu_s=9.0, peak_mb=80.0)
    assert (run.rate, run.cpu_us) == (2_000.0, 20.0)


def test_a_million_tasks_of_a_second_cost_what_the_list_says() -> None:
    assert dollars_per_million(1.0) == pytest.approx(18.0 + 0.5 * 2.0)


def test_the_tail_is_from_the_median_end_to_the_last() -> None:
    assert after_median_s([1.0, 9.0, 2.0, 4.0]) == 6.0


def test_messages_are_as_large_as_said_and_readable() -> None:
    messages = list(lane._messages("noop", 2, {}))
    assert [len(one.data) for one in messages] == [lane.DATA_BYTES] * 2 == [200, 200]
    tasks = [decode(one.data, one.attributes, message_id="1", published_s=0.0, lane="x") for one in messages]
    assert [task.task_id for task in tasks] == [one.attributes["task_id"] for one in messages] == [lane.task_id(0), lane.task_id(1)]
    assert {task.shard for task in tasks} == {"bench"}


def test_every_task_type_has_a_handler_and_every_contender_a_count_for_each_delay() -> None:
    task_types = {one.task_type for one in CONTENDERS} | {"wait", "async_wait"}
    registry = load_handlers(map(module_of, task_types), default_registry)
    assert task_types <= set(registry)
    assert all(set(one.counts) == set(m.DELAYS_MS) for one in CONTENDERS)


def test_proc_files_are_read() -> None:
    numbers = " ".join(map(str, range(4, 53)))
    assert cpu_of(f"7 (a b) c) S {numbers}") == 14 + 15
    assert peak_of("Name:\tx\nVmHWM:\t  1000 kB\nVmRSS:\t 10 kB\n") == 1.024
    with pytest.raises(ValueError, match="no memory"):
        peak_of("Name:\tx\nState:\tZ (zombie)\n")


def test_lines_that_are_no_objects_are_text() -> None:
    assert json_of('{"event": "x"}\n') == {"event": "x"}
    assert json_of("{no\n") is None
    assert json_of("[1]\n") is None


def test_a_program_is_watched_to_its_end() -> None:
    says = "import json,os; print('a warning'); print(json.dumps({'event': 'last_ack', 'home': os.environ.get('BACKLOG', '')}))"
    program = started([sys.executable, "-c", says], BACKLOG="7")
    assert program.wait_for("last_ack", 20).body["home"] == "7"
    assert program.wait(60) == 0
    assert program.text == ["a warning\n"]
    assert program.ended_s >= program.lines[0].came_s >= program.began_s
    with pytest.raises(RuntimeError, match=re.compile("wrote no `first_pull`.*a warning", re.DOTALL)):
        program.wait_for("first_pull", 20)


def test_a_program_sees_nothing_of_the_cloud_but_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "elsewhere:1")
    says = "import json,os; print(json.dumps({'event': 'seen', 'names': sorted(os.environ)}))"
    program = started([sys.executable, "-c", says])
    names = program.wait_for("seen", 20).body["names"]
    program.end()
    assert "PUBSUB_EMULATOR_HOST" not in names
    assert "PATH" in names


@pytest.mark.slow
def test_it_runs_and_records(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    few = ["--runs=1", "--scale=0.002", "--only-local", "--delays=0,5", "--contenders=Fanout,bare loop"]
    command = [sys.executable, "-m", "bench.worker", *few, f"--output={output}", "--page="]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    recorded = read(output)
    assert recorded.notes == []
    assert done.stdout.endswith(f"{text(recorded)}\n")
    measured = {one.name: one.runs for one in recorded.measures}
    assert set(measured[m.speed(m.LOCAL, 5)]) == {FANOUT, BARE}
    assert set(measured[m.START]) == set(m.STARTS)
    assert set(measured[m.on(m.FILES, m.LOCAL)]) == set(measured[m.on(m.FILES_CPU, m.LOCAL)]) == {FANOUT, URLLIB3, CLIENT}
    assert {m.WAIT_THREADS, m.WAIT_ASYNC, m.memory(m.LARGE), m.TAIL, m.on(m.MEMORY, m.LOCAL)} <= set(measured)
    speeds = [value for delay_ms in (0, 5) for values in measured[m.speed(m.LOCAL, delay_ms)].values() for value in values]
    assert all(value > 0 for value in [*speeds, *measured[m.START][m.TO_PULL], *measured[m.memory(m.SMALL)][m.LOCAL]]), measured
