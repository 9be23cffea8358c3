"""Random days of the real client against what the documentation of Cloud Storage says of generations and preconditions.

The model below is written from the reference of the JSON API and "Request preconditions", never from the server's code:
where the documentation leaves an answer open, the machine does not ask, or takes either one.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from google.api_core.exceptions import NotFound, NotModified, PreconditionFailed
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

_numbers = itertools.count(1)
ALL_NAMES = ["a", "a/b", "a/c", "ü/日本"]
NAMES = st.sampled_from(ALL_NAMES)
METADATA = st.dictionaries(st.sampled_from("kl"), st.sampled_from(["v", "wört"]), max_size=2)
# How a condition is meant: none, one kind with the live number, with an old one, or with 0 (for generations only).
GENERATION = st.sampled_from([None, *itertools.product(("match", "not_match"), ("live", "old", "zero"))])
METAGENERATION = st.sampled_from([None, None, None, *itertools.product(("match", "not_match"), ("live", "old"))])
WISH = st.one_of(st.just((None, None)), st.just((("match", "live"), None)), st.tuples(GENERATION, METAGENERATION))
Meant = tuple[str, str] | None
Wish = tuple[Meant, Meant]
OLD_GENERATION = 1
OLD_METAGENERATION = 1_000_000


@dataclass
class Known:
    generation: int
    metageneration: int
    content: bytes
    metadata: dict[str, str]


def arguments(wish: Wish, live: Known | None, source: str = "") -> dict[str, int]:
    """The client's keyword arguments for a wish."""
    generation, metageneration = wish
    given: dict[str, int] = {}
    if generation:
        kind, value = generation
        number = {"live": live.generation if live else OLD_GENERATION, "old": OLD_GENERATION, "zero": 0}[value]
        given[f"if_{source}generation_{kind}"] = number
    if metageneration and (live or metageneration[0] == "match"):  # a not-match without an object is not documented
        kind, value = metageneration
        given[f"if_{source}metageneration_{kind}"] = live.metageneration if live and value == "live" else OLD_METAGENERATION
    return given


def refusal(given: dict[str, int], live: Known | None, *, reading: bool = False) -> type[Exception] | None:
    """What the documentation says of these conditions on an object; `live` None: there is none."""
    refused: type[Exception] | None = None
    for argument, number in given.items():
        is_generation = "metageneration" not in argument
        now = (live.generation if is_generation else live.metageneration) if live else None
        if argument.endswith("not_match"):
            if (now is None and is_generation) or now == number:
                refused = refused or (NotModified if reading else PreconditionFailed)
        elif now != number and not (is_generation and number == 0 and now is None):
            refused = PreconditionFailed
    return refused


def attempt(expected: set[type[Exception] | None], action: Callable[[], object]) -> bool:
    """Whether the action took effect; it must, unless something else is expected."""
    wanted = tuple(kind for kind in expected if kind is not None)
    if not wanted:
        action()
        return True
    with pytest.raises(wanted):
        action()
    return False


class ClientMachine(RuleBasedStateMachine):
    client: Any

    @initialize()
    def begin(self) -> None:
        self.bucket = self.client.create_bucket(f"machine-{next(_numbers)}")
        self.known: dict[str, Known] = {}
        self.last_generation = 0
        for name in ALL_NAMES[1:]:
            self.insert_anew(name, name.encode(), {"k": "first"})

    def insert_anew(self, name: str, content: bytes, metadata: dict[str, str]) -> None:
        blob = self.bucket.blob(name)
        blob.metadata = metadata
        blob.upload_from_string(content)
        self.written(name, content, metadata)

    def written(self, name: str, content: bytes, metadata: dict[str, str]) -> None:
        """An object was made anew: a generation above all earlier ones, metageneration 1."""
        made = self.bucket.get_blob(name)
        assert made.generation > self.last_generation
        assert made.metageneration == 1
        self.last_generation = made.generation
        self.known[name] = Known(made.generation, 1, content, metadata)

    @rule(name=NAMES, wish=WISH, content=st.binary(max_size=20), metadata=METADATA, resumable=st.booleans())
    def insert(self, name: str, wish: Wish, content: bytes, metadata: dict[str, str], resumable: bool) -> None:
        live = self.known.get(name)
        given = arguments(wish, live)
        blob = self.bucket.blob(name, chunk_size=256 * 1024 if resumable else None)
        blob.metadata = metadata
        if attempt({refusal(given, live)}, lambda: blob.upload_from_file(io.BytesIO(content), **given)):
            self.written(name, content, metadata)

    @rule(name=NAMES, wish=WISH, media=st.booleans())
    def read(self, name: str, wish: Wish, media: bool) -> None:
        live = self.known.get(name)
        given = arguments(wish, live)
        blob = self.bucket.blob(name)
        expected = refusal(given, live, reading=True) if live else NotFound
        if media:
            content: list[bytes] = []
            if attempt({expected}, lambda: content.append(blob.download_as_bytes(**given))) and live:
                assert content == [live.content]
        elif attempt({expected}, lambda: blob.reload(**given)) and live:
            assert (blob.generation, blob.metageneration, blob.size) == (live.generation, live.metageneration, len(live.content))

    @rule(name=NAMES, use=st.sampled_from(["reload", "download_as_bytes", "delete", "patch"]))
    def an_old_generation_is_gone(self, name: str, use: str) -> None:
        with pytest.raises(NotFound):
            getattr(self.bucket.blob(name, generation=OLD_GENERATION), use)()

    @rule(
        name=NAMES,
        wish=WISH,
        metadata=st.dictionaries(st.sampled_from("kl"), st.sampled_from(["v", None]), min_size=1),
        whole=st.booleans(),
    )
    def change(self, name: str, wish: Wish, metadata: dict[str, str | None], whole: bool) -> None:
        live = self.known.get(name)
        given = arguments(wish, live)
        blob = self.bucket.blob(name)
        blob.metadata = metadata
        call = blob.update if whole else blob.patch
        if attempt({refusal(given, live) if live else NotFound}, lambda: call(**given)) and live:
            live.metageneration += 1
            merged = metadata if whole else {**live.metadata, **metadata}
            live.metadata = {key: value for key, value in merged.items() if value is not None}

    @rule(name=NAMES, wish=WISH)
    def delete(self, name: str, wish: Wish) -> None:
        live = self.known.get(name)
        given = arguments(wish, live)
        if attempt({refusal(given, live) if live else NotFound}, lambda: self.bucket.blob(name).delete(**given)):
            del self.known[name]

    @rule(source=NAMES, name=NAMES, source_wish=WISH, wish=WISH, how=st.sampled_from(["copy", "rewrite", "move"]))
    def copy(self, source: str, name: str, source_wish: Wish, wish: Wish, how: str) -> None:
        if how == "move" and source == name:
            return  # not documented
        live, replaced = self.known.get(source), self.known.get(name)
        from_given, to_given = arguments(source_wish, live, "source_"), arguments(wish, replaced)
        given = {**from_given, **to_given}
        calls: dict[str, Callable[[], object]] = {
            "copy": lambda: self.bucket.copy_blob(self.bucket.blob(source), self.bucket, name, **given),
            "rewrite": lambda: self.bucket.blob(name).rewrite(self.bucket.blob(source), **given),
            "move": lambda: self.bucket.move_blob(self.bucket.blob(source), name, **given),
        }
        expected = {refusal(from_given, live) if live else NotFound, refusal(to_given, replaced)}
        if attempt(expected, calls[how]) and live:
            if how == "move":
                del self.known[source]
            self.written(name, live.content, dict(live.metadata))

    @rule(sources=st.lists(NAMES, min_size=1, max_size=3), name=NAMES, wish=WISH, source_wish=st.sampled_from([None, "live", "old"]))
    def compose(self, sources: list[str], name: str, wish: Wish, source_wish: str | None) -> None:
        replaced, live = self.known.get(name), self.known.get(sources[0])
        given = {key: number for key, number in arguments(wish, replaced).items() if "not_match" not in key}  # it takes no others
        expected = {refusal(given, replaced)} | {NotFound for source in sources if source not in self.known}
        options: dict[str, Any] = dict(given)
        if source_wish and live:
            number = live.generation if source_wish == "live" else OLD_GENERATION
            options["if_source_generation_match"] = [number] + [None] * (len(sources) - 1)
            expected.add(None if source_wish == "live" else PreconditionFailed)
        parts = [self.bucket.blob(source) for source in sources]
        if attempt(expected, lambda: self.bucket.blob(name).compose(parts, **options)):
            self.written(name, b"".join(self.known[source].content for source in sources), {})

    @rule(prefix=st.sampled_from(["", "a", "a/", "ü/", "q"]), page_size=st.integers(1, 3), limit=st.sampled_from([None, 1, 2]))
    def list_some(self, prefix: str, page_size: int, limit: int | None) -> None:
        expected = sorted((name for name in self.known if name.startswith(prefix)), key=str.encode)
        listed = self.client.list_blobs(self.bucket, prefix=prefix, page_size=page_size, max_results=limit)
        assert [blob.name for blob in listed] == expected[:limit]
        folders = self.client.list_blobs(self.bucket, prefix=prefix, delimiter="/")
        plain = [name for name in expected if "/" not in name[len(prefix) :]]
        assert [blob.name for blob in folders] == plain
        below = {prefix + name[len(prefix) :].split("/")[0] + "/" for name in expected if name not in plain}
        assert folders.prefixes == below

    @invariant()
    def the_bucket_is_as_known(self) -> None:
        seen = {blob.name: (blob.generation, blob.metageneration, blob.size, blob.metadata or {}) for blob in self.bucket.list_blobs()}
        assert seen == {
            name: (known.generation, known.metageneration, len(known.content), known.metadata) for name, known in self.known.items()
        }


@pytest.mark.slow
def test_the_real_client_finds_what_the_documentation_says(client: Any) -> None:
    class Machine(ClientMachine):
        pass

    Machine.client = client
    # No shrinking: each step is a real request, and to search for a shorter failure would take minutes.
    phases = (Phase.explicit, Phase.generate)
    limits = settings(derandomize=True, deadline=None, max_examples=30, stateful_step_count=25, database=None, phases=phases)
    run_state_machine_as_test(Machine, settings=limits)
