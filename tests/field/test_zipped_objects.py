"""Objects that are stored with `Content-Encoding: gzip`: whole ones are read unzipped, damaged ones are never read short."""

from __future__ import annotations

import gzip
import hashlib
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from batch.child.store import RemoteStore, answered
from batch.child.wire import Frame
from batch.handling.registry import Registry
from batch.model.errors import ObjectDamaged, ObjectTooLarge, Permanent
from batch.model.exit import ExitReason
from batch.model.outcomes import Outcome, from_lines, merged
from batch.services.objects import GoogleObjectStore
from batch.services.ports import ObjectStore
from batch.testing import run_handler
from tests.batch.worker.isolated import submit
from tests.batch.worker.plant import Plant
from tests.field import services_handlers
from tests.field.services_handlers import KINDS, known
from tests.seams.conftest import create_bucket
from tests.support import Service

PLAIN = bytes(random.Random(1).choices(b"0123456789abcdef", k=40_000))
WHOLE = gzip.compress(PLAIN)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


DAMAGED = {
    "cut in the middle": WHOLE[: len(WHOLE) // 2],
    "cut before its checksum": WHOLE[:-8],
    "cut before its length": WHOLE[:-4],
    "cut in its head": WHOLE[:5],
    "its second part cut": WHOLE + WHOLE[:500],
    "a bit flipped": flipped(WHOLE, len(WHOLE) // 2),
    "its checksum changed": flipped(WHOLE, len(WHOLE) - 8),
    "its length changed": flipped(WHOLE, len(WHOLE) - 1),
    "never zipped": PLAIN,
    "more behind it": WHOLE + b"more",
}
AS_STORED = {"br": b"\x1b\x03\x00 not looked at", "zstd": b"(\xb5/\xfd not looked at", "gzip, gzip": gzip.compress(WHOLE), "": WHOLE}
"""Content by encoding: what Cloud Storage does not unzip, the reader gets as it is stored."""


@pytest.fixture
def store(local_storage: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleObjectStore]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    create_bucket(local_storage, project, f"bucket-{project}")
    real = GoogleObjectStore(f"bucket-{project}", project=project, timeout_s=5.0)
    yield real
    real.close()


def upload(store: GoogleObjectStore, data: bytes, encoding: str, name: str = "in") -> None:
    """As `gcloud storage cp --gzip-local` does it."""
    blob = store._bucket.blob(name)
    blob.content_encoding = encoding or None
    blob.upload_from_string(data)


def downloaded(store: ObjectStore) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        try:
            store.download("in", path)
            return path.read_bytes()
        except BaseException:
            assert not path.exists()
            raise


READS: dict[str, Callable[[ObjectStore], bytes]] = {
    "read": lambda store: store.read("in"),
    "read_stored": lambda store: store.read_stored("in")[0],
    "read_with_info": lambda store: store.read_with_info("in")[0],
    "download": downloaded,
}
each_read = pytest.mark.parametrize("read", READS.values(), ids=READS)


@each_read
@pytest.mark.parametrize("data", [WHOLE, WHOLE + WHOLE, b""], ids=["one", "two parts", "empty"])
def test_a_whole_one_is_read_unzipped(store: GoogleObjectStore, read: Callable[[ObjectStore], bytes], data: bytes) -> None:
    upload(store, data, "gzip")
    assert read(store) == (gzip.decompress(data) if data else b"")


@each_read
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_one_is_never_read_short(store: GoogleObjectStore, read: Callable[[ObjectStore], bytes], damage: str) -> None:
    upload(store, DAMAGED[damage], "gzip")
    with pytest.raises(ObjectDamaged, match=r"object in is stored with Content-Encoding: gzip and is no whole gzip .*upload it again"):
        read(store)
    remote = RemoteStore("b", lambda header, body: answered(store, Frame(header, body)))
    with pytest.raises(ObjectDamaged, match="object in is stored with Content-Encoding: gzip") as raised:
        read(remote)
    assert type(raised.value) is ObjectDamaged


@each_read
@pytest.mark.parametrize("encoding", AS_STORED)
def test_other_encodings_are_the_readers_affair(store: GoogleObjectStore, read: Callable[[ObjectStore], bytes], encoding: str) -> None:
    upload(store, AS_STORED[encoding], encoding)
    assert read(store) == AS_STORED[encoding]


def ran(store: GoogleObjectStore, kind: str) -> Outcome:
    registry = Registry()
    registry._handlers.update(known(kind))
    plant = Plant(registry=registry)
    plant.store = store  # type: ignore[assignment]
    submit(plant, "one", kind, call="read in")
    worker = plant.worker(BACKLOG=1, HANDLERS=services_handlers.__name__, PROCESSES=1)
    assert worker.run() is ExitReason.SHARE_DONE
    return merged(line for info in store.list("outcomes/") for line in from_lines(store.read(info.name)))["one"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_handler_fails_alike(store: GoogleObjectStore, kind: str) -> None:
    upload(store, DAMAGED["cut in the middle"], "gzip")
    outcome = ran(store, kind)
    assert (outcome.outcome, outcome.error_type) == ("dead", "ObjectDamaged")
    assert "object in is stored with Content-Encoding: gzip and is no whole gzip" in outcome.reason


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_handler_reads_a_whole_one(store: GoogleObjectStore, kind: str) -> None:
    upload(store, WHOLE, "gzip")
    outcome = ran(store, kind)
    assert (outcome.outcome, outcome.result) == ("succeeded", len(PLAIN))


def test_the_built_in_handlers_do_not_take_a_part_for_the_whole(store: GoogleObjectStore) -> None:
    import batch.handlers  # noqa: F401 - registers them

    upload(store, gzip.compress(b"a,b\n1,2\n3,4\n" * 500)[:-20], "gzip", "input/a.csv")
    with pytest.raises(ObjectDamaged, match=r"object input/a\.csv"):
        run_handler("file_processing", {"filename": "a.csv"}, store=store)
    with pytest.raises(ObjectDamaged, match=r"object input/a\.csv"):
        run_handler("data_transformation", {"source": "input/a.csv"}, store=store)


@pytest.mark.parametrize("encoding", ["gzip", "br", ""])
def test_what_is_stored_is_told_beside_the_content_where_it_is_another(store: GoogleObjectStore, encoding: str) -> None:
    upload(store, WHOLE, encoding, "input/in")
    remote = RemoteStore("b", lambda header, body: answered(store, Frame(header, body)))
    assert store.read_stored("input/in") == remote.read_stored("input/in") == ((PLAIN, WHOLE) if encoding == "gzip" else (WHOLE, None))
    facts = run_handler("file_processing", {"filename": "in", "operation": "checksum"}, store=store).json("processed/in")
    content = PLAIN if encoding == "gzip" else WHOLE
    assert (facts["size"], facts["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    if encoding == "gzip":
        info = store.info("input/in")
        assert info is not None
        assert facts["stored"] == {
            "content_encoding": "gzip",
            "size": len(WHOLE),
            "crc32c": info.crc32c,
            "md5": hashlib.md5(WHOLE).hexdigest(),
            "sha256": hashlib.sha256(WHOLE).hexdigest(),
        }
    else:
        assert "stored" not in facts


@pytest.mark.parametrize(("encoding", "data"), [("gzip", gzip.compress(b"0" * (8 << 20))), ("", PLAIN * 60)], ids=["unfolds", "is large"])
def test_a_content_that_is_too_large_never_fills_the_memory(
    store: GoogleObjectStore, monkeypatch: pytest.MonkeyPatch, encoding: str, data: bytes
) -> None:
    import batch.handlers  # noqa: F401 - registers them

    upload(store, data, encoding, "input/in")
    remote = RemoteStore("b", lambda header, body: answered(store, Frame(header, body)))
    tracemalloc.start()
    for one in (store, remote):
        with pytest.raises(ObjectTooLarge, match=r"object input/in is larger than the 1,000,000 bytes"):
            one.read_stored("input/in", 1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 4_500_000
    tracemalloc.stop()
    monkeypatch.setenv("DATA_MAX_BYTES", "1000000")
    for operation in ("checksum", "compress", "describe"):
        with pytest.raises(Permanent, match=r"the input 'in' is larger than 1,000,000 bytes, the DATA_MAX_BYTES of this lane"):
            run_handler("file_processing", {"filename": "in", "operation": operation}, store=store)
    most = len(gzip.decompress(data) if encoding else data)
    assert len(store.read_stored("input/in", most)[0]) == most
