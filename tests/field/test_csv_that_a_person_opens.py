"""CSV that a person opens in a spreadsheet: on request no cell of a client's is a formula there."""

from __future__ import annotations

import json

import pytest

from batch.handlers.data_transformation import DataTransformation
from batch.testing import MemoryObjectStore, run_handler

SOURCE = b"name,=amount\n=HYPERLINK(1),-5\n+1+2,+5\n-1e3,-x\n@SUM(A1),1\nfine,2\n"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, SOURCE),
        ({"escape_formulas": True}, b"name,'=amount\n'=HYPERLINK(1),-5\n'+1+2,+5\n-1e3,'-x\n'@SUM(A1),1\nfine,2\n"),
    ],
)
def test_cells_are_no_formulas_on_request(asked: dict[str, bool], expected: bytes) -> None:
    store = MemoryObjectStore()
    store.write("a.csv", SOURCE)
    run_handler("data_transformation", {"source": "a.csv", "transformation": "deduplicate", **asked}, store=store)
    (result,) = [name for name in store.names("results/") if name.endswith(".json")]
    assert store.read(json.loads(store.read(result))["data"]["object"]) == expected
    assert not DataTransformation().escape_formulas
