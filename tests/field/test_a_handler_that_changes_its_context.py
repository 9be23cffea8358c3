"""What a handler writes into its context's attributes and outputs changes neither its message nor how its task ends."""

from __future__ import annotations

import json

import pytest

from tests.batch.worker.plant import SHARD, Plant
from tests.field import untidy_handlers
from tests.field.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_its_task_ends_as_it_says_and_its_message_stays_as_it_was(kind: str) -> None:
    plant = Plant(registry=untidy_handlers.UNTIDY)
    for case in ("dead", "good"):
        body = {"task_id": case, "task_type": f"untidy-{kind}", "case": case}
        plant.publish(json.dumps(body).encode(), shard=SHARD, colour="red")
    plant.worker(BACKLOG=2, HANDLERS=untidy_handlers.__name__, PROCESSES=1).run()
    assert plant.final() == {"dead": "dead", "good": "succeeded"}
    (letter,) = plant.letters()
    assert letter["colour"] == "red"
    assert "count" not in letter
