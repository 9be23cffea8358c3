"""The benchmark of telemetry: its page is its recording, and one small round runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import telemetry
from bench.page import PAGE, RESULTS, block
from bench.recording import read


def test_the_page_is_what_was_recorded() -> None:
    assert block(telemetry.NAME, telemetry.text(read(RESULTS / f"{telemetry.NAME}.json"))) in PAGE.read_text(encoding="utf-8")


def test_one_message_in_so_many_is_sampled() -> None:
    flags = [telemetry.attributes_of(every)(100).get("traceparent", "")[-2:] for every in telemetry.KINDS.values()]
    assert flags == ["", "00", "01", "01"]
    assert telemetry.attributes_of(100)(101)["traceparent"].endswith("-00")


@pytest.mark.slow
def test_it_runs_and_records(tmp_path: Path) -> None:
    output = tmp_path / "telemetry.json"
    small = ["--pairs", "2", "--messages", "500", "--local", "--kinds", telemetry.ALL, "--output", str(output), "--page", ""]
    subprocess.run([sys.executable, "-m", "bench.telemetry", *small], check=True, timeout=300, stdout=subprocess.DEVNULL)
    assert [sorted(one.runs) for one in read(output).measures] == [[telemetry.OFF, telemetry.ON]] * 2
