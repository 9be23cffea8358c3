"""Generated data sets: plausible measurements. The same seed gives the same rows, everywhere.

A longer set begins with the rows of a shorter one. Only `Random.random` is used, whose sequence Python promises to keep.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

COLUMNS = ("id", "category", "value", "quantity", "measured_at")
NUMERIC_COLUMNS = ("value", "quantity")
CATEGORIES = ("alpha", "beta", "gamma", "delta", "epsilon")
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def rows(size: int, seed: int) -> Iterator[list[str]]:
    """`id` (text), `category`, `value` (about 100 ± 15, two digits), `quantity` (1–20), `measured_at` (one a minute, UTC)."""
    rng = random.Random(seed).random
    for number in range(size):
        value = 55 + 30 * (rng() + rng() + rng())
        category = CATEGORIES[int(rng() * len(CATEGORIES))]
        quantity = 1 + int(rng() * 20)
        measured_at = (_FIRST + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield [f"row-{number:07d}", category, f"{value:.2f}", str(quantity), measured_at]


def write(path: Path, size: int, seed: int) -> None:
    """As CSV with a header; no cell needs quotes."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        file.writelines(",".join(row) + "\n" for row in rows(size, seed))
