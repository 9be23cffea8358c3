"""The benchmark of tables: its page is its recording, and one small round runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import data
from bench.page import PAGE, RESULTS, block
from bench.recording import read


def test_the_page_is_what_was_recorded() -> None:
    assert block(data.NAME, data.text(read(RESULTS / f"{data.NAME}.json"))) in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("task", data.TASKS)
def test_both_do_the_same_work(task: str, tmp_path: Path) -> None:
    table = tmp_path / "1.csv"
    data.made(table, 100_000)
    for who in (data.FANOUT, data.ENGINE):
        assert json.dumps(data.one(who, task, table, "csv", None))
