"""Preconditions and generations through the real client, one operation after the other."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, NotFound, NotModified, PreconditionFailed


@pytest.fixture
def blob(bucket: Any) -> Any:
    made = bucket.blob("it")
    made.upload_from_string("first")
    return made


Write = Callable[[Any, dict[str, int]], object]
WRITES: dict[str, Write] = {
    "upload": lambda bucket, wanted: bucket.blob("it").upload_from_string("second", **wanted),
    "resumable": lambda bucket, wanted: bucket.blob("it", chunk_size=262144).upload_from_file(io.BytesIO(b"second"), **wanted),
    "patch": lambda bucket, wanted: bucket.blob("it").patch(**wanted),
    "update": lambda bucket, wanted: bucket.blob("it").update(**wanted),
    "compose": lambda bucket, wanted: bucket.blob("it").compose([bucket.blob("it")] * 2, **wanted),
    "copy": lambda bucket, wanted: bucket.copy_blob(bucket.blob("it"), bucket, "it", **wanted),
    "rewrite": lambda bucket, wanted: bucket.blob("it").rewrite(bucket.blob("it"), **wanted),
    "delete": lambda bucket, wanted: bucket.blob("it").delete(**wanted),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_every_write_is_refused_when_its_condition_fails(bucket: Any, blob: Any, write: Write) -> None:
    generation = blob.generation
    for wanted in (
        {"if_generation_match": 0},
        {"if_generation_match": generation - 1},
        {"if_generation_not_match": generation},
        {"if_metageneration_match": 7},
        {"if_metageneration_not_match": 1},
    ):
        try:
            with pytest.raises(PreconditionFailed):
                write(bucket, wanted)
        except TypeError:
            assert write is WRITES["compose"]  # takes the match conditions only
    assert bucket.blob("it").download_as_bytes() == b"first"
    assert bucket.get_blob("it").generation == generation
    write(bucket, {"if_generation_match": generation})


def test_a_412_says_so_in_the_words_of_the_real_service(bucket: Any, blob: Any) -> None:
    with pytest.raises(PreconditionFailed) as caught:
        blob.patch(if_generation_match=1)
    assert caught.value.errors[0]["reason"] == "conditionNotMet"
    assert caught.value.message.endswith("At least one of the pre-conditions you specified did not hold.")


def test_reads(bucket: Any, blob: Any) -> None:
    generation = blob.generation
    for read in (blob.reload, blob.download_as_bytes):
        with pytest.raises(PreconditionFailed):
            read(if_generation_match=generation + 1)
        with pytest.raises(NotModified):
            read(if_generation_not_match=generation)
        with pytest.raises(NotModified):
            read(if_metageneration_not_match=1)
        read(if_generation_match=generation)
    with pytest.raises(PreconditionFailed):
        blob.reload(if_etag_match="other")
    with pytest.raises(NotModified):
        blob.reload(if_etag_not_match=blob.etag)


def test_a_given_generation_is_that_or_nothing(bucket: Any, blob: Any) -> None:
    old = bucket.blob("it", generation=blob.generation)
    assert old.download_as_bytes() == b"first"
    bucket.blob("it").upload_from_string("second")
    for use in (old.reload, old.download_as_bytes, old.delete, old.patch):
        with pytest.raises(NotFound):
            use()
    with pytest.raises(NotFound):
        bucket.copy_blob(old, bucket, "copy", source_generation=old.generation)
    assert bucket.blob("it").download_as_bytes() == b"second"


def test_conditions_on_the_source(bucket: Any, blob: Any) -> None:
    for wanted in ({"if_source_generation_match": 1}, {"if_source_generation_not_match": blob.generation}):
        with pytest.raises(PreconditionFailed):
            bucket.copy_blob(blob, bucket, "copy", **wanted)
        with pytest.raises(PreconditionFailed):
            bucket.blob("copy").rewrite(blob, **wanted)
    with pytest.raises(PreconditionFailed):
        bucket.blob("joined").compose([blob], if_source_generation_match=[1])
    assert [found.name for found in bucket.list_blobs()] == ["it"]


def test_generations_rise_after_delete_and_create(bucket: Any, blob: Any) -> None:
    seen = [blob.generation]
    for _ in range(20):
        blob.delete()
        blob = bucket.blob("it")
        blob.upload_from_string("again", if_generation_match=0)
        seen.append(blob.generation)
    assert seen == sorted(set(seen))


def test_a_bad_hash_stores_nothing(bucket: Any, client: Any) -> None:
    blob = bucket.blob("bad")
    blob.crc32c = "AAAAAA=="
    with pytest.raises(BadRequest, match="doesn't match calculated CRC32C"):
        blob.upload_from_string("content", checksum=None)
    blob = bucket.blob("bad")
    blob.md5_hash = "AAAAAAAAAAAAAAAAAAAAAA=="
    with pytest.raises(BadRequest, match="doesn't match calculated MD5"):
        blob.upload_from_string("content", checksum=None)
    assert list(client.list_blobs(bucket)) == []


@pytest.mark.parametrize("name", [".", "..", "line\nend", "x" * 1025])
def test_bad_names_are_a_400(bucket: Any, name: str) -> None:
    with pytest.raises(BadRequest):
        bucket.blob(name).upload_from_string("x")
