"""What a table may cost: each is done within the handler's limits, or dead with the reason."""

from __future__ import annotations

import csv
import io
import random
from typing import Any

import pytest

from batch.handlers.tables import source
from batch.model.errors import Permanent
from batch.testing import MemoryObjectStore, run_handler


def result_of(data: bytes, name: str = "s.csv", **fields: Any) -> tuple[list[list[str]], dict[str, Any]]:
    """The rows of the data, the header first, and what the handler returned."""
    store = MemoryObjectStore()
    run = run_handler("data_transformation", {"source": name, **fields}, objects={name: data}, store=store)
    body = store.read(f"results/{run.task.task_id}-1.csv").decode()
    return list(csv.reader(io.StringIO(body, newline=""))), dict(run.result)


# --- long rows


def cell(rng: random.Random, most: int) -> str:
    letters = rng.choice(("abc9 ", 'ab,"\n9'))
    return "".join(rng.choice(letters) for _ in range(int(rng.random() ** 3 * most))).strip() or "x"


@pytest.mark.parametrize("seed", range(30))
def test_no_row_is_lost_where_the_engines_pieces_meet(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 1000
    monkeypatch.setattr(source, "MAX_ROW_BYTES", longest)
    rng = random.Random(seed)
    rows = [[cell(rng, longest // 4) for _ in range(3)] for _ in range(rng.randrange(1, 400))]
    if is_too_long := rng.random() < 0.3:
        rows[rng.choice((0, -1, len(rows) // 2))][1] = "y" * (rng.choice((1, 2, 3)) * longest + rng.randrange(10))
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([["a", "b", "c"], *rows])
    data = text.getvalue().encode()
    keep = {"transformation": "filter", "conditions": [{"column": "a", "operator": "is_missing", "value": False}], "quote": '"'}
    if is_too_long:
        with pytest.raises(Permanent, match=r"near line \d+: a row is longer than 1,000 bytes"):
            result_of(data, **keep)
        return
    written, told = result_of(data, **keep)
    assert (written[1:], told["rows_in"]) == (rows, len(rows))
