"""What the real client does every day: buckets, uploads in every form, downloads, metadata, lists, copies, batches."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound

MEGABYTE = 1024 * 1024


def test_buckets_are_created_listed_changed_and_deleted(client: Any, bucket: Any) -> None:
    with pytest.raises(Conflict):
        client.create_bucket(bucket.name)
    assert bucket.name in [found.name for found in client.list_buckets()]
    bucket.labels = {"team": "blue"}
    bucket.patch()
    assert client.get_bucket(bucket.name).labels == {"team": "blue"}
    assert client.get_bucket(bucket.name).metageneration == 2
    bucket.blob("x").upload_from_string("1")
    with pytest.raises(Conflict, match="not empty"):
        bucket.delete()
    bucket.blob("x").delete()
    bucket.delete()
    with pytest.raises(NotFound, match=r"The specified bucket does not exist\."):
        client.get_bucket(bucket.name)
    assert client.lookup_bucket(bucket.name) is None


def test_buckets_are_listed_per_project(server: Any, bucket: Any) -> None:
    other = server.client("another-project")
    other.create_bucket(f"{bucket.name}-other")
    assert [found.name for found in other.list_buckets()] == [f"{bucket.name}-other"]
    other.close()


def test_bucket_names_that_are_paths_are_refused(client: Any) -> None:
    for name in ("..", "a/b", "Upper", "x"):
        with pytest.raises((BadRequest, ValueError)):
            client.create_bucket(name)


def test_an_upload_comes_back_with_all_its_metadata(bucket: Any) -> None:
    blob = bucket.blob("folder/täglich ü%2F+&?#.txt")
    blob.metadata = {"task_id": "t-1"}
    blob.cache_control = "no-store"
    blob.upload_from_string("héllo", content_type="text/plain; charset=utf-8", checksum="md5")
    found = bucket.get_blob(blob.name)
    assert found.metadata == {"task_id": "t-1"}
    assert (found.size, found.content_type, found.cache_control) == (6, "text/plain; charset=utf-8", "no-store")
    assert found.generation == blob.generation
    assert found.metageneration == 1
    assert found.md5_hash
    assert found.crc32c
    assert found.etag
    assert found.time_created == found.updated
    assert found.download_as_text() == "héllo"
    assert found.id == f"{bucket.name}/{blob.name}/{blob.generation}"


def test_an_empty_object_is_an_object(bucket: Any) -> None:
    bucket.blob("empty").upload_from_string(b"")
    assert bucket.blob("empty").download_as_bytes() == b""
    assert bucket.get_blob("empty").size == 0


def test_what_is_not_there_is_a_404_with_the_real_text(bucket: Any) -> None:
    blob = bucket.blob("missing")
    with pytest.raises(NotFound, match=f"No such object: {bucket.name}/missing"):
        blob.reload()
    with pytest.raises(NotFound, match=f"No such object: {bucket.name}/missing"):
        blob.download_as_bytes()
    with pytest.raises(NotFound, match=f"No such object: {bucket.name}/missing"):
        blob.delete()
    assert not blob.exists()
    assert bucket.get_blob("missing") is None


@pytest.mark.parametrize("chunk_size", [None, MEGABYTE])
def test_large_uploads_are_resumable(bucket: Any, chunk_size: int | None) -> None:
    content = bytes(range(256)) * 4096 * 9
    blob = bucket.blob("large", chunk_size=chunk_size)
    blob.upload_from_file(io.BytesIO(content), size=len(content), checksum="crc32c")
    assert blob.size == len(content)
    assert bucket.blob("large").download_as_bytes(checksum="crc32c") == content
    assert bucket.blob("large", chunk_size=MEGABYTE).download_as_bytes() == content


def test_a_stream_of_unknown_length_is_written_and_read(bucket: Any) -> None:
    blob = bucket.blob("stream", chunk_size=256 * 1024)
    with blob.open("wb", content_type="text/csv") as out:
        for _ in range(10):
            out.write(b"x" * 100_000)
    with bucket.blob("stream").open("rb", chunk_size=256 * 1024) as read:
        assert read.read() == b"x" * 1_000_000
    assert bucket.get_blob("stream").content_type == "text/csv"


def test_ranges(bucket: Any) -> None:
    blob = bucket.blob("digits")
    blob.upload_from_string("0123456789")
    assert blob.download_as_bytes(start=2, end=4) == b"234"
    assert blob.download_as_bytes(start=7) == b"789"
    assert blob.download_as_bytes(start=-3) == b"789"
    assert blob.download_as_bytes(start=5, end=99) == b"56789"


def test_patch_merges_metadata_and_update_replaces_it(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.metadata = {"keep": "1", "drop": "2"}
    blob.upload_from_string("content")
    generation = blob.generation
    blob.metadata = {"drop": None, "new": "3"}
    blob.patch()
    assert (blob.metadata, blob.metageneration, blob.generation) == ({"keep": "1", "new": "3"}, 2, generation)
    blob.metadata = {"only": "4"}
    blob.update()
    assert (bucket.get_blob("x").metadata, bucket.get_blob("x").metageneration) == ({"only": "4"}, 3)
    blob.metadata = {"big": "x" * 9000}
    with pytest.raises(BadRequest, match="8192"):
        blob.patch()


def test_lists(client: Any, bucket: Any) -> None:
    names = ["a/1", "a/2", "a/b/3", "c", "d/", "ä", "\U0001f600", "\uffee"]
    for name in reversed(names):
        bucket.blob(name).upload_from_string("x")
    listed = [blob.name for blob in client.list_blobs(bucket)]
    assert listed == sorted(names, key=str.encode)
    assert [blob.name for blob in client.list_blobs(bucket, page_size=2)] == listed
    assert [blob.name for blob in client.list_blobs(bucket, max_results=3)] == listed[:3]
    assert [blob.name for blob in client.list_blobs(bucket, prefix="a/")] == ["a/1", "a/2", "a/b/3"]
    assert [blob.name for blob in client.list_blobs(bucket, start_offset="a/2", end_offset="d/")] == ["a/2", "a/b/3", "c"]
    assert [blob.name for blob in client.list_blobs(bucket, match_glob="a/*")] == ["a/1", "a/2"]
    folders = client.list_blobs(bucket, delimiter="/")
    assert [blob.name for blob in folders] == ["c", "ä", "\uffee", "\U0001f600"]
    assert folders.prefixes == {"a/", "d/"}
    trailing = client.list_blobs(bucket, delimiter="/", include_trailing_delimiter=True)
    assert "d/" in [blob.name for blob in trailing]
    blob = next(iter(client.list_blobs(bucket, fields="items(name,size),nextPageToken")))
    assert blob.size == 1


def test_copy_rewrite_rename_and_compose(bucket: Any) -> None:
    source = bucket.blob("source")
    source.metadata = {"k": "v"}
    source.upload_from_string("one", content_type="text/plain")
    copied = bucket.copy_blob(source, bucket, "copied")
    assert (copied.download_as_bytes(), copied.metadata, copied.content_type) == (b"one", {"k": "v"}, "text/plain")
    rewritten = bucket.blob("rewritten")
    assert rewritten.rewrite(source) == (None, 3, 3)
    assert rewritten.metadata == {"k": "v"}
    renamed = bucket.rename_blob(copied, "renamed/here")
    assert renamed.download_as_bytes() == b"one"
    assert not bucket.blob("copied").exists()
    joined = bucket.blob("joined")
    joined.content_type = "text/x"
    joined.compose([source, renamed, source])
    assert joined.download_as_bytes() == b"oneoneone"
    joined.reload()
    assert (joined.component_count, joined.md5_hash, joined.content_type) == (3, None, "text/x")


def test_gzip_is_unzipped_unless_the_client_takes_it(bucket: Any) -> None:
    blob = bucket.blob("zipped")
    blob.content_encoding = "gzip"
    packed = gzip.compress(b"text " * 1000)
    blob.upload_from_string(packed)
    assert blob.download_as_bytes() == b"text " * 1000
    assert blob.download_as_bytes(raw_download=True) == packed


def test_a_batch_answers_each_call(client: Any, bucket: Any) -> None:
    for number in range(3):
        bucket.blob(f"o/{number}").upload_from_string("x")
    with client.batch():
        bucket.blob("o/0").delete()
        patched = bucket.blob("o/1")
        patched.metadata = {"a": "b"}
        patched.patch()
    assert [blob.name for blob in bucket.list_blobs()] == ["o/1", "o/2"]
    assert bucket.get_blob("o/1").metadata == {"a": "b"}
    batch = client.batch()
    with pytest.raises(NotFound), batch:
        bucket.delete_blobs([bucket.blob("missing"), bucket.blob("o/2")])
    assert [blob.name for blob in bucket.list_blobs()] == ["o/1"]


def test_the_environment_variable_alone_leads_to_the_server(server: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    client = storage.Client(credentials=AnonymousCredentials(), project="test-project")
    client.bucket(bucket.name).blob("x").upload_from_string("y")
    assert bucket.name in [found.name for found in client.list_buckets()]
    assert bucket.blob("x").download_as_bytes() == b"y"
    client.close()


def test_a_forced_bucket_deletion_removes_its_objects(client: Any, bucket: Any) -> None:
    for number in range(5):
        bucket.blob(str(number)).upload_from_string("x")
    bucket.delete(force=True)
    assert client.lookup_bucket(bucket.name) is None
