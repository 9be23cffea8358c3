"""The worst that the adversary has found: no worse than when it was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.adversary import case_of, outcome_of

WORST: list[dict[str, Any]] = json.loads((Path(__file__).parent / "worst.json").read_text())


@pytest.mark.parametrize("found", WORST, ids=lambda one: f"{one['search']}-{one['ratio']}")
def test_it_is_no_worse_than_it_was(found: dict[str, Any]) -> None:
    outcome = outcome_of(case_of(found["case"]))
    assert outcome.ratio <= found["ratio"]
    assert outcome.in_time >= found["in_time"]
    assert outcome.waste_count <= found["empty"]
