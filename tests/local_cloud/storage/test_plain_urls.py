"""Plain URLs of objects, as public and signed ones are, and requests in forms that other clients and proxies send: HEAD, zipped bodies."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.oauth2 import service_account


@pytest.fixture
def http(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as made:
        yield made


@pytest.mark.parametrize("name", ["a", "folder/täglich.txt", "a/b%2Fc", "x#?y z", "trailing/"])
def test_a_public_url_gives_the_object(http: httpx.Client, bucket: Any, name: str) -> None:
    bucket.blob(name).upload_from_string(b"content", content_type="text/x")
    answer = http.get(bucket.blob(name).public_url)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"content", "text/x")
    assert http.get(bucket.blob(name).public_url, headers={"range": "bytes=1-2"}).content == b"on"


def test_a_signed_url_gives_takes_and_deletes_the_object(http: httpx.Client, server: Any, bucket: Any) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    info = {"client_email": "a@b", "private_key": pem.decode(), "token_uri": "https://nowhere.invalid"}
    signer = service_account.Credentials.from_service_account_info(info)
    blob = bucket.blob("signed/object")

    def url(method: str) -> str:
        options = {"expiration": timedelta(hours=1), "credentials": signer, "api_access_endpoint": server.url}
        return str(blob.generate_signed_url(version="v4", method=method, **options))

    sent = {"content-type": "text/x", "x-goog-meta-task": "t-1", "cache-control": "no-store", "x-goog-if-generation-match": "0"}
    assert http.put(url("PUT"), content=b"content", headers=sent).status_code == 200
    blob.reload()
    assert (blob.content_type, blob.metadata, blob.cache_control) == ("text/x", {"task": "t-1"}, "no-store")
    assert http.put(url("PUT"), content=b"other", headers=sent).status_code == 412
    assert http.get(url("GET")).content == b"content"
    assert http.delete(url("DELETE")).status_code == 204
    missing = http.get(url("GET"))
    assert (missing.status_code, missing.text) == (404, f"No such object: {bucket.name}/signed/object")


def test_an_upload_to_a_plain_url_keeps_what_says_that_it_is_zipped(http: httpx.Client, bucket: Any) -> None:
    zipped = gzip.compress(b"content")
    http.put(f"/{bucket.name}/zipped", content=zipped, headers={"content-encoding": "gzip"})
    blob = bucket.get_blob("zipped")
    assert (blob.content_encoding, blob.size, blob.download_as_bytes()) == ("gzip", len(zipped), b"content")


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("PUT", "/{}/x?partNumber=1&uploadId=2", {}),
        ("POST", "/{}/x?uploads", {}),
        ("GET", "/{}/x?acl", {}),
        ("PUT", "/{}/x", {"x-goog-copy-source": "/a/b"}),
        ("GET", "/{}?list-type=2", {}),
        ("PUT", "/storage/v1/nonsense", {}),
    ],
)
def test_other_calls_of_the_xml_api_are_refused_by_name(
    http: httpx.Client, bucket: Any, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = http.request(method, path.format(bucket.name), content=b"x" if method == "PUT" else None, headers=headers)
    assert (answer.status_code, f"The local Cloud Storage has no {method} /" in answer.text) == (400, True)
    assert bucket.get_blob("x") is None


def test_a_head_is_a_get_without_its_content(http: httpx.Client, bucket: Any) -> None:
    bucket.blob("a").upload_from_string(b"content")
    for path in (f"/storage/v1/b/{bucket.name}", f"/download/storage/v1/b/{bucket.name}/o/a?alt=media", f"/{bucket.name}/a"):
        asked, got = http.head(path), http.get(path)
        assert (asked.status_code, asked.content, asked.headers["content-length"]) == (200, b"", got.headers["content-length"])
    assert http.head(f"/{bucket.name}/missing").status_code == 404


def test_a_body_that_was_zipped_for_the_way_arrives_as_it_was(http: httpx.Client, bucket: Any) -> None:
    """As `gcloud storage cp --gzip-in-flight` sends it, in one request and in a resumable session."""
    content = b"content" * 100_000
    zipped, headers = gzip.compress(content), {"content-encoding": "gzip", "content-type": "text/x"}
    uploads = f"/upload/storage/v1/b/{bucket.name}/o"
    assert http.post(f"{uploads}?uploadType=media&name=whole", content=zipped, headers=headers).json()["size"] == str(len(content))
    session = http.post(f"{uploads}?uploadType=resumable&name=session").headers["location"]
    assert http.put(session, content=zipped, headers=headers).json()["size"] == str(len(content))
    for name in ("whole", "session"):
        blob = bucket.get_blob(name)
        assert (blob.content_encoding, blob.download_as_bytes() == content) == (None, True)
    patched = gzip.compress(b'{"metadata": {"a": "b"}}')
    made = http.patch(f"/storage/v1/b/{bucket.name}/o/whole", content=patched, headers=headers)
    assert made.json()["metadata"] == {"a": "b"}


@pytest.mark.parametrize(
    "body", [b"content", gzip.compress(b"content")[:-5], gzip.compress(b"content") + b"more"], ids=["none", "cut", "more"]
)
def test_a_body_that_is_no_gzip_though_it_says_so_is_refused(http: httpx.Client, bucket: Any, body: bytes) -> None:
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x"
    answer = http.post(path, content=body, headers={"content-encoding": "gzip"})
    assert (answer.status_code, "Content-Encoding" in answer.text, bucket.get_blob("x")) == (400, True, None)


def test_nothing_is_found_among_what_is_deleted(bucket: Any) -> None:
    bucket.blob("a").upload_from_string(b"content")
    assert list(bucket.list_blobs(soft_deleted=True)) == []
    assert bucket.get_blob("a", soft_deleted=True, generation=bucket.get_blob("a").generation) is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [("europe-west1", ("EUROPE-WEST1", "region")), ("eu", ("EU", "multi-region")), ("nam4", ("NAM4", "dual-region"))],
)
def test_a_location_is_shown_as_the_real_service_shows_it(client: Any, project: str, given: str, shown: tuple[str, str]) -> None:
    bucket = client.create_bucket(f"{project}-{given}".lower(), location=given)
    assert (bucket.location, bucket.location_type) == shown
