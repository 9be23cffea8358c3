"""Values from JSON are checked, and dataclasses become JSON as `asdict` makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pytest

from controller.model.plain import read, written


class Color(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    count: int
    color: Color = Color.RED


@dataclass(frozen=True, slots=True)
class Whole:
    parts: tuple[Part, ...]
    marks: tuple[tuple[float, int], ...]
    one: Part | None
    at: float | None
    body: Mapping[str, Any]


FULL = Whole((Part("a", 1), Part("b", 2)), ((1.5, 3), (2.5, 4)), Part("c", 3), 5.0, {"x": [1, {"y": None}]})
EMPTY = Whole((), (), None, None, {})


@pytest.mark.parametrize("value", [FULL, EMPTY])
def test_what_is_written_is_as_asdict_has_it_and_is_read_again(value: Whole) -> None:
    text = json.dumps(written(value))
    assert text == json.dumps(asdict(value))
    assert read(Whole, json.loads(text)) == value


def test_what_has_no_dataclass_in_it_is_not_copied() -> None:
    assert written(FULL)["body"] is FULL.body
    assert written(FULL)["marks"] is FULL.marks
    assert written(None) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": [5]},
        {"parts": [{"name": "a"}]},
        {"parts": [["a", 1, "blue"]]},
        {"parts": [["a", 1]]},
        {"marks": [[1.5]]},
        {"marks": [[float("nan"), 1]]},
        {"marks": [[1.5, True]]},
        {"one": {"name": "a", "count": -1, "color": "red"}},
        {"at": "soon"},
        {"body": 5},
    ],
)
def test_what_is_not_of_its_type_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        read(Whole, {**json.loads(json.dumps(asdict(FULL))), **changes})


def test_a_list_of_fields_and_finished_values_are_taken() -> None:
    assert read(Part, ["a", 1, "red"]) == Part("a", 1)
    assert read(Whole, {**asdict(EMPTY), "parts": [Part("a", 1)]}).parts == (Part("a", 1),)
