"""The benchmark of the local cloud: its arithmetic, its table, that the docs show what was recorded, and that it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.local_cloud import COLUMNS, GOOGLE, LOCAL, NAME
from bench.page import PAGE, RESULTS, block, put_into, table
from bench.pubsub_load import Span, rate
from bench.recording import Measure, Recording, read, write
from tests.support import clean_environment

ROOT = Path(__file__).resolve().parents[2]


def recording(*measures: Measure) -> Recording:
    return Recording("python -m bench.x", "2026-01-02T03:04:05Z", 0.5, {"cores": "2"}, list(measures), ["A note."])


def test_the_docs_show_what_was_recorded() -> None:
    text = block(NAME, table(read(RESULTS / f"{NAME}.json"), COLUMNS))
    assert text in PAGE.read_text(encoding="utf-8"), f"run `python -m bench.{NAME}`"


def test_the_table_has_medians_ranges_ratio_aim_and_machine() -> None:
    speed = Measure("speed", "messages/s", "≥ 1", {LOCAL: [30_000.0, 10_000.0, 20_000.0], GOOGLE: [8_000.0]})
    time = Measure("time", "s", "< 3 s", {LOCAL: [1.234]})
    lines = table(recording(speed, time), COLUMNS).splitlines()
    assert lines[2] == f"| measure | unit | {LOCAL} | {GOOGLE} | {LOCAL} ÷ {GOOGLE} | wanted |"
    assert lines[4] == "| speed | messages/s | 20,000 (10,000–30,000) | 8,000 | 2.50 | ≥ 1 |"
    assert lines[5] == "| time | s | 1.23 | – | – | < 3 s |"
    assert lines[7] == "Machine: cores 2; load before the start 0.5."
    assert lines[-1] == "A note."


def test_a_recording_is_read_back(tmp_path: Path) -> None:
    measure = Measure("speed", "messages/s", "≥ 1")
    measure.add(LOCAL, 1.23456)
    write(recording(measure), tmp_path / "folder" / "x.json")
    assert read(tmp_path / "folder" / "x.json") == recording(Measure("speed", "messages/s", "≥ 1", {LOCAL: [1.235]}))


def test_a_block_is_replaced_and_the_rest_of_the_page_stays() -> None:
    page = f"before\n{block('x', 'old')}\n{block('y', 'other')}\nafter\n"
    assert put_into(page, "x", "new") == f"before\n{block('x', 'new')}\n{block('y', 'other')}\nafter\n"
    with pytest.raises(ValueError, match="no block `z`"):
        put_into(page, "z", "new")


def test_the_rate_runs_from_the_first_start_to_the_last_end_and_misses_nothing() -> None:
    spans = [Span(60, 10.0, 11.0), Span(45, 10.5, 12.0)]  # five of them twice
    assert rate(spans, 100) == 50.0
    with pytest.raises(RuntimeError, match="only 105 of 106"):
        rate(spans, 106)


@pytest.mark.slow
def test_it_runs_and_records(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    few = ["--runs=1", "--messages=2000", "--clients=2", "--backlog=1000", "--objects=20", "--only-local"]
    command = [sys.executable, "-m", "bench.local_cloud", *few, f"--output={output}", "--page="]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    recorded = read(output)
    assert done.stdout.strip() == table(recorded, COLUMNS)
    assert len(recorded.measures) == 12
    assert all(value > 0 for measure in recorded.measures for value in measure.runs[LOCAL])
    assert recorded.machine["cores"]
