"""The benchmark of dead letters: its page is its recording, and one small round runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import dead
from bench.page import PAGE, RESULTS, block
from bench.recording import read


def test_the_page_is_what_was_recorded() -> None:
    assert block(dead.NAME, dead.text(read(RESULTS / f"{dead.NAME}.json"))) in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_runs_and_records(tmp_path: Path) -> None:
    output = tmp_path / "dead.json"
    small = ["--letters", "5000", "--rounds", "1", "--rate", "4000", "--output", str(output), "--page", ""]
    subprocess.run([sys.executable, "-m", "bench.dead", *small], check=True, timeout=300, stdout=subprocess.DEVNULL)
    ls, memory, replay = read(output).measures
    assert (len(ls.runs), len(memory.runs), len(replay.runs)) == (3, 4, 4)
