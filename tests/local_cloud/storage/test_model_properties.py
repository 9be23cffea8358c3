"""Preconditions and generations of the model against a tiny one: a dict of (generation, metageneration, content, metadata)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from local_cloud.storage.model.conditions import Conditions
from local_cloud.storage.model.errors import NotFound, NotModified, PreconditionFailed, StorageError
from local_cloud.storage.model.listing import ListQuery
from local_cloud.storage.model.storage import Ref, Storage
from tests.local_cloud.manual_clock import ManualClock

Result = TypeVar("Result")
NAMES = st.sampled_from(["a", "a/b", "A", "c/"])
# Which of the four conditions are set, and whether each one is set so that it holds for the live object.
CONDITIONS = st.tuples(*[st.sampled_from([None, None, None, "holds", "fails"])] * 4)
Chosen = tuple[str | None, str | None, str | None, str | None]


@dataclass
class Known:
    generation: int
    metageneration: int
    content: bytes
    metadata: dict[str, str]


def conditions_for(chosen: Chosen, live: Known | None) -> Conditions:
    generation = live.generation if live else 0
    metageneration = live.metageneration if live else 1

    def match(choice: str | None, value: int) -> int | None:
        return None if choice is None else value if choice == "holds" else value + 1

    def not_match(choice: str | None, value: int) -> int | None:
        return None if choice is None else value + 1 if choice == "holds" else value

    return Conditions(
        match(chosen[0], generation),
        not_match(chosen[1], generation),
        match(chosen[2], metageneration),
        not_match(chosen[3], metageneration),
    )


def expected_error(chosen: Chosen, live: Known | None, *, must_exist: bool, reading: bool = False) -> type[StorageError] | None:
    if live is None and must_exist:
        return NotFound
    without_object = live is None
    if chosen[0] == "fails" or chosen[2] == "fails" or (without_object and (chosen[1] or chosen[2])):
        return PreconditionFailed
    if chosen[1] == "fails" or (chosen[3] == "fails" and not without_object):
        return NotModified if reading else PreconditionFailed
    return None


def attempt(expected: type[StorageError] | None, action: Callable[[], Result]) -> Result | None:
    """What the action returns, or None after it has raised exactly what was expected."""
    if expected is None:
        return action()
    with pytest.raises(expected) as caught:
        action()
    assert type(caught.value) is expected
    return None


class StorageMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.storage = Storage(Path(self.folder.name), self.clock)
        self.storage.create_bucket("bucket", "p", {})
        self.known: dict[str, Known] = {}
        self.last_generation = 0

    def written(self, name: str, generation: int, content: bytes, metadata: dict[str, str]) -> None:
        assert generation > self.last_generation
        self.last_generation = generation
        self.known[name] = Known(generation, 1, content, metadata)

    @rule(name=NAMES, chosen=CONDITIONS, content=st.binary(max_size=8), metadata=st.dictionaries(st.sampled_from("kl"), st.just("v")))
    def put(self, name: str, chosen: Chosen, content: bytes, metadata: dict[str, str]) -> None:
        live = self.known.get(name)
        staged = self.storage.files.stage()
        staged.write(content)
        stored = attempt(
            expected_error(chosen, live, must_exist=False),
            lambda: self.storage.put(Ref("bucket", name), staged, {"metadata": metadata}, conditions_for(chosen, live)),
        )
        if stored:
            self.written(name, stored.generation, content, metadata)

    @rule(name=NAMES, chosen=CONDITIONS, value=st.sampled_from(["v", "w", None]))
    def patch(self, name: str, chosen: Chosen, value: str | None) -> None:
        live = self.known.get(name)
        stored = attempt(
            expected_error(chosen, live, must_exist=True),
            lambda: self.storage.change(Ref("bucket", name), {"metadata": {"k": value}}, conditions_for(chosen, live)),
        )
        if stored and live:
            live.metageneration += 1
            live.metadata = {key: kept for key, kept in {**live.metadata, "k": value}.items() if kept is not None}
            assert stored.metageneration == live.metageneration

    @rule(name=NAMES, chosen=CONDITIONS)
    def delete(self, name: str, chosen: Chosen) -> None:
        live = self.known.get(name)
        expected = expected_error(chosen, live, must_exist=True)
        attempt(expected, lambda: self.storage.delete(Ref("bucket", name), conditions_for(chosen, live)))
        if expected is None:
            del self.known[name]

    @rule(name=NAMES, chosen=CONDITIONS, older=st.booleans())
    def read(self, name: str, chosen: Chosen, older: bool) -> None:
        live = self.known.get(name)
        generation = live.generation - 1 if live and older else None
        expected = NotFound if generation else expected_error(chosen, live, must_exist=True, reading=True)
        opened = attempt(expected, lambda: self.storage.open(Ref("bucket", name, generation), conditions_for(chosen, live)))
        if opened and live:
            stored, file = opened
            with file:
                assert file.read() == live.content
            assert stored.fields.get("metadata", {}) == live.metadata

    @rule(source=NAMES, name=NAMES, source_chosen=CONDITIONS, chosen=CONDITIONS)
    def copy(self, source: str, name: str, source_chosen: Chosen, chosen: Chosen) -> None:
        live, replaced = self.known.get(source), self.known.get(name)
        expected = expected_error(source_chosen, live, must_exist=True) or expected_error(chosen, replaced, must_exist=False)
        stored = attempt(
            expected,
            lambda: self.storage.copy(
                Ref("bucket", source),
                Ref("bucket", name),
                {},
                source_conditions=conditions_for(source_chosen, live),
                conditions=conditions_for(chosen, replaced),
            ),
        )
        if stored and live:
            self.written(name, stored.generation, live.content, dict(live.metadata))

    @rule(sources=st.lists(NAMES, min_size=1, max_size=3), name=NAMES, chosen=CONDITIONS)
    def compose(self, sources: list[str], name: str, chosen: Chosen) -> None:
        replaced = self.known.get(name)
        missing = any(source not in self.known for source in sources)
        expected = NotFound if missing else expected_error(chosen, replaced, must_exist=False)
        parts = [(source, None, Conditions()) for source in sources]
        stored = attempt(expected, lambda: self.storage.compose(Ref("bucket", name), parts, {}, conditions_for(chosen, replaced)))
        if stored:
            self.written(name, stored.generation, b"".join(self.known[source].content for source in sources), {})

    @rule()
    def restart(self) -> None:
        self.storage.close()
        self.storage = Storage(Path(self.folder.name), self.clock)

    @rule(seconds=st.sampled_from([0.0, 0.5, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_list_and_the_versions_are_as_known(self) -> None:
        listed = self.storage.list_objects("bucket", ListQuery())[0]
        seen = {stored.name: (stored.generation, stored.metageneration, stored.size) for stored in listed}
        assert seen == {name: (known.generation, known.metageneration, len(known.content)) for name, known in self.known.items()}
        assert [stored.name for stored in listed] == sorted(self.known)
        assert self.storage.files.staged_tokens() == set()

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            self.storage.close()
            self.folder.cleanup()


TestStorageMachine = StorageMachine.TestCase
TestStorageMachine.settings = settings(derandomize=True, deadline=None, max_examples=40, stateful_step_count=30, database=None)
