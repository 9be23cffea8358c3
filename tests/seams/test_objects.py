"""What every object store must do: the same tests for the one in memory and for Google's client on the local cloud."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import pytest

from batch.model.errors import ObjectMissing, PreconditionFailed
from batch.services.ports import ObjectStore


def test_what_was_written_is_read_back(store: ObjectStore) -> None:
    written = store.write("a/b.txt", b"hello", content_type="text/plain", metadata={"task_id": "1"})
    data, info = store.read_with_info("a/b.txt")
    assert data == store.read("a/b.txt") == b"hello"
    assert info == store.info("a/b.txt")
    assert (info.name, info.size, info.content_type, dict(info.metadata)) == ("a/b.txt", 5, "text/plain", {"task_id": "1"})
    assert info.generation == written.generation > 0
    assert info.updated_s > 1_600_000_000
    assert info.crc32c == base64.b64encode(google_crc32c.value(b"hello").to_bytes(4, "big")).decode()


def test_a_write_returns_the_info_of_what_it_wrote(store: ObjectStore) -> None:
    assert store.write("one", b"x", metadata={"k": "v"}) == store.info("one")


@pytest.mark.parametrize("name", ["ü/…/日本.json", "with space & plus+%2F?#.txt", "a//b", "dot.", "=[]*"])
def test_names_need_no_escaping(store: ObjectStore, name: str) -> None:
    store.write(name, name.encode())
    assert store.read(name) == name.encode()
    assert [one.name for one in store.list("")] == [name]
    assert store.delete(name)


@pytest.mark.parametrize("size", [0, 1, 9 * 1024 * 1024])
def test_content_of_any_size_comes_back(store: ObjectStore, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert store.write("sized", data[:size]).size == size
    assert store.read("sized") == data[:size]


def test_reading_what_is_not_there_says_so(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing, match="no-such"):
        store.read("no-such")
    with pytest.raises(ObjectMissing, match="no-such"):
        store.read_with_info("no-such")
    with pytest.raises(ObjectMissing, match="no-such"):
        store.patch_metadata("no-such", {"a": "b"})
    assert store.info("no-such") is None
    assert store.delete("no-such") is False


def test_create_only_writes_once(store: ObjectStore) -> None:
    first = store.write("once", b"first", if_generation=0)
    with pytest.raises(PreconditionFailed) as raised:
        store.write("once", b"second", if_generation=0)
    assert (raised.value.name, raised.value.if_generation) == ("once", 0)
    assert store.read_with_info("once") == (b"first", first)


def test_create_only_works_again_after_a_delete(store: ObjectStore) -> None:
    first = store.write("again", b"first", if_generation=0)
    assert store.delete("again", if_generation=first.generation)
    second = store.write("again", b"second", if_generation=0)
    assert second.generation != first.generation
    assert store.read("again") == b"second"


def test_a_write_at_a_generation_replaces_only_that_one(store: ObjectStore) -> None:
    first = store.write("cas", b"1")
    second = store.write("cas", b"2", if_generation=first.generation)
    assert second.generation > first.generation
    with pytest.raises(PreconditionFailed):
        store.write("cas", b"3", if_generation=first.generation)
    assert store.read("cas") == b"2"


def test_a_write_at_a_generation_fails_where_nothing_is(store: ObjectStore) -> None:
    with pytest.raises(PreconditionFailed):
        store.write("absent", b"1", if_generation=12345)
    assert store.info("absent") is None


def test_a_large_create_only_write_is_refused_too(store: ObjectStore) -> None:
    """Large contents take another way through the client, with its own errors."""
    store.write("large", b"first")
    with pytest.raises(PreconditionFailed):
        store.write("large", bytes(9 * 1024 * 1024), if_generation=0)
    assert store.read("large") == b"first"


def test_a_plain_write_replaces_everything(store: ObjectStore) -> None:
    store.write("plain", b"1", content_type="text/plain", metadata={"old": "1"})
    store.write("plain", b"2", metadata={"new": "2"})
    data, info = store.read_with_info("plain")
    assert (data, dict(info.metadata), info.content_type) == (b"2", {"new": "2"}, "application/octet-stream")


def test_a_delete_at_an_old_generation_is_refused(store: ObjectStore) -> None:
    first = store.write("kept", b"1")
    second = store.write("kept", b"2")
    with pytest.raises(PreconditionFailed):
        store.delete("kept", if_generation=first.generation)
    assert store.read("kept") == b"2"
    assert store.delete("kept", if_generation=second.generation)
    assert store.info("kept") is None


def test_a_patch_merges_and_keeps_the_generation(store: ObjectStore) -> None:
    written = store.write("patched", b"content", metadata={"keep": "1", "change": "1"})
    patched = store.patch_metadata("patched", {"change": "2", "add": "ü"})
    assert dict(patched.metadata) == {"keep": "1", "change": "2", "add": "ü"}
    assert patched.generation == written.generation
    assert store.info("patched") == patched
    assert store.read("patched") == b"content"


def test_a_listing_is_in_the_order_of_names_with_metadata(store: ObjectStore) -> None:
    for name in ("w/10", "w/2", "w/ä", "w/Z", "v/1", "w", "x"):
        store.write(name, name.encode(), metadata={"name": name})
    found = list(store.list("w/"))
    assert [one.name for one in found] == ["w/10", "w/2", "w/Z", "w/ä"]
    assert [one.metadata["name"] for one in found] == [one.name for one in found]
    assert found == [store.info(one.name) for one in found]
    assert list(store.list("nothing/")) == []
    assert [one.name for one in store.list("w/", "w/2")] == ["w/2", "w/Z", "w/ä"]
    assert [one.name for one in store.list("w/", "a")] == ["w/10", "w/2", "w/Z", "w/ä"]
    assert list(store.list("w/", "w/ö")) == []


def test_a_listing_goes_on_over_pages(store: ObjectStore) -> None:
    names = [f"many/{number:05d}" for number in range(1203)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: store.write(name, b""), names))
    assert [one.name for one in store.list("many/")] == names


def race(*contenders: Callable[[], object]) -> list[object]:
    """Results or errors of calls that start together."""
    barrier = threading.Barrier(len(contenders))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except PreconditionFailed as error:
            return error

    with ThreadPoolExecutor(len(contenders)) as threads:
        return list(threads.map(run, contenders))


def test_of_many_that_create_one_object_exactly_one_wins(store: ObjectStore) -> None:
    for round_number in range(5):
        name = f"race-{round_number}"
        results = race(*[lambda name=name, who=who: store.write(name, b"%d" % who, if_generation=0) for who in range(8)])
        winners = [who for who, result in enumerate(results) if not isinstance(result, PreconditionFailed)]
        assert len(winners) == 1
        assert store.read(name) == b"%d" % winners[0]


def test_a_counter_kept_by_generation_loses_no_increment(store: ObjectStore) -> None:
    store.write("counter", b"0")

    def increment() -> None:
        while True:
            data, info = store.read_with_info("counter")
            try:
                store.write("counter", b"%d" % (int(data) + 1), if_generation=info.generation)
                return
            except PreconditionFailed:
                continue

    race(*[increment] * 8)
    assert store.read("counter") == b"8"


def test_content_and_info_are_of_the_same_generation(store: ObjectStore) -> None:
    """Of three writes a round one is done before the read, two go on beside it: disturbed, but not for ever."""
    store.write("moving", b"0", metadata={"content": "0"})
    may_write, written = threading.Semaphore(0), threading.Semaphore(0)
    rounds = 15

    def write() -> None:
        for number in range(1, 3 * rounds + 1):
            may_write.acquire()
            store.write("moving", b"%d" % number, metadata={"content": str(number)})
            written.release()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    contents = set()
    for _ in range(rounds):
        may_write.release(3)
        assert written.acquire(timeout=60)
        data, info = store.read_with_info("moving")
        assert info.metadata["content"] == data.decode()
        contents.add(data)
        assert written.acquire(timeout=60)
        assert written.acquire(timeout=60)
    writer.join()
    assert len(contents) > 1
