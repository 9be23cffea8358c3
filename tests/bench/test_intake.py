"""The benchmark of the front door: its page is its recording, what wrk prints is understood, and one small round runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import intake
from bench.page import PAGE, RESULTS, block
from bench.recording import read

PRINTED = """Running 6s test @ http://127.0.0.1:1/submit-task
  2 threads and 256 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    86.01ms   40.05ms   1.24s    95.88%
    Req/Sec     1.53k   258.19     1.93k    74.36%
  Latency Distribution
     50%  800.00us
     75%   88.14ms
     90%  105.35ms
     99%    1.19s \n  18296 requests in 6.03s, 4.10MB read
Requests/sec:   3033.63
Transfer/sec:    695.21KB
"""


def test_the_page_is_what_was_recorded() -> None:
    assert block(intake.NAME, intake.text(read(RESULTS / f"{intake.NAME}.json"))) in PAGE.read_text(encoding="utf-8")


def test_what_wrk_prints() -> None:
    assert intake.load_in(PRINTED) == intake.Load(3033.63, 0.8, 1190.0)
    for wrong in ("  Non-2xx or 3xx responses: 5\n", "  Socket errors: connect 0, read 0, write 0, timeout 3\n"):
        with pytest.raises(RuntimeError, match=wrong.split(":")[0].strip()):
            intake.load_in(PRINTED + wrong)
    with pytest.raises(RuntimeError, match="something else"):
        intake.load_in("")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(shutil.which("wrk") is None or shutil.which("gcloud") is None, reason="wrk or the Cloud SDK is not installed")
def test_it_runs_and_records(tmp_path: Path) -> None:
    output = tmp_path / "intake.json"
    small = ["--rounds", "1", "--seconds", "1", "--tasks", "2000", "--output", str(output), "--page", ""]
    subprocess.run([sys.executable, "-m", "bench.intake", *small], check=True, timeout=300, stdout=subprocess.DEVNULL)
    single, slowest, ratios, bulk = read(output).measures
    assert (len(single.runs), len(slowest.runs)) == (5, 5)
    assert len(ratios.runs) in (4, 5)
    assert "the publisher client" in bulk.runs
