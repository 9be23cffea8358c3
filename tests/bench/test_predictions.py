"""The benchmark of predictions: what it takes from a history, its table, that the docs show what was recorded, and that it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.page import RESULTS, block
from bench.predictions import ACTUAL, NAME, PAGE, PREDICTED, errors_percent, measures, text
from bench.recording import Measure, Recording, read
from tests.support import clean_environment

ROOT = Path(__file__).resolve().parents[2]
ENTRY = {"lane": "slow", "backlog": 90, "workers": 3, "predicted_drain_s": 10.0, "actual_drain_s": 12.0}


def recording(*found: Measure) -> Recording:
    return Recording("python -m bench.predictions", "2026-01-02T03:04:05Z", 0.5, {"cores": "2"}, list(found), [])


def test_the_docs_show_what_was_recorded() -> None:
    assert block(NAME, text(read(RESULTS / f"{NAME}.json"))) in PAGE.read_text(encoding="utf-8"), f"run `python -m bench.{NAME}`"


def test_launches_that_predicted_nothing_or_have_not_ended_are_left_out() -> None:
    found = measures([{**ENTRY, "predicted_drain_s": None}, {**ENTRY, "actual_drain_s": None}, {**ENTRY, "workers": 1}, ENTRY])
    assert [one.name for one in found] == ["slow, 90 tasks, 1 worker", "slow, 90 tasks, 3 workers"]
    assert found[1].runs == {PREDICTED: [10.0], ACTUAL: [12.0]}


def test_the_table_says_how_many_were_close() -> None:
    found = measures([ENTRY, {**ENTRY, "actual_drain_s": 7.0}])
    assert errors_percent(found) == [20.0, -30.0]
    lines = text(recording(*found)).splitlines()
    assert lines[4] == "| slow, 90 tasks, 3 workers | 10.0 s | 12.0 s | +20 % |"
    assert lines[7] == "1 of 2 within 25 %; half of them by 25 % or less, the worst by 30 % (wanted: all within 25 %)."


@pytest.mark.slow
def test_it_runs_and_records(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    command = [sys.executable, "-W", "error", "-m", "bench.predictions", "--lanes=1", "--rounds=0", f"--output={output}", "--page="]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert text(read(output)) in done.stdout
    assert read(output).measures == []
