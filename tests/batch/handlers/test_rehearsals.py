"""The built-in handlers, rehearsed: whatever happens to a task, the bucket ends as after one undisturbed run."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from batch.handling.registry import default_registry
from batch.testing import Rehearsal, drain
from intake.models import Door, message_of
from intake.problems import RequestRefused

PEOPLE = {"input/people.csv": b"id,name\n1,Ada\n2,Bob\n1,Ada\n"}
TASKS: list[tuple[str, dict[str, Any]]] = [
    ("file_processing", {"filename": "people.csv"}),
    ("file_processing", {"filename": "people.csv", "operation": "compress"}),
    ("file_processing", {"filename": "missing.csv"}),
    ("data_transformation", {"dataset_size": 5}),
    ("data_transformation", {"source": "input/people.csv", "transformation": "aggregation", "group_by": "name"}),
    ("data_transformation", {"source": "input/people.csv", "transformation": "deduplicate", "keep": "last"}),
    ("data_transformation", {"source": "input/people.csv", "transformation": "filter", "conditions": [{"column": "id", "value": 1}]}),
]


@pytest.mark.parametrize(("task_type", "fields"), TASKS)
def test_whatever_happens(task_type: str, fields: dict[str, Any]) -> None:
    assert Rehearsal(task_type, fields, objects=PEOPLE).check()


def test_all_of_them_in_one_lane() -> None:
    tasks = [{"task_type": task_type, **fields} for task_type, fields in TASKS]
    drained = drain(tasks, objects=PEOPLE, concurrency=4, deliver_twice=True)
    ended = {one.outcome for one in drained.outcomes.values()}
    assert ended <= {"succeeded", "superseded"}  # two of them want the same output, and one must yield
    assert len(drained.outcomes) == len(TASKS)


def test_the_door_refuses_what_the_handler_would() -> None:
    def at_the_door(**body: Any) -> None:
        message_of(Door(default_registry, "data_transformation"), json.dumps(body).encode(), None, "default", 0.0, random.Random(1))

    fields = {"transformation": "filter", "conditions": [{"column": "id", "operator": "<", "value": "3"}]}
    with pytest.raises(RequestRefused, match="'<' needs a number without quotes: 3") as refused:
        at_the_door(**fields)
    assert (refused.value.status, refused.value.body()["fields"]) == (422, ["conditions.0"])
    fields["conditions"][0]["value"] = 3  # type: ignore[index]
    at_the_door(**fields, source="a.csv")
