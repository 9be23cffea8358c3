"""The wire itself, where other clients differ from the Python one: line ends, resumable sessions, raw paths, error JSON."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from local_cloud.storage.api.bodies import RelatedBody, boundary_of
from tests.support import wait_until

CHUNK = 256 * 1024


@pytest.fixture
def http(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as made:
        yield made


def related(eol: str, name: str, content: bytes, *, quoted: str = '"') -> tuple[bytes, dict[str, str]]:
    head = eol.join(
        [
            "--==bound==",
            "Content-Type: application/json",
            "MIME-Version: 1.0",
            "",
            json.dumps({"name": name}),
            "--==bound==",
            "Content-Type: text/special",
            "MIME-Version: 1.0",
            "Content-Transfer-Encoding: binary",
            "",
            "",
        ]
    )
    body = head.encode() + content + f"{eol}--==bound==--".encode()
    return body, {"content-type": f"multipart/related; boundary={quoted}==bound=={quoted}"}


@pytest.mark.parametrize("eol", ["\r\n", "\n"])
@pytest.mark.parametrize("content", [b"", b"\r\n", b"line\n\nline\r\n\r\n--==bound", b"x" * 300_000 + b"\r"])
def test_multipart_uploads_with_either_line_end(http: httpx.Client, bucket: Any, eol: str, content: bytes) -> None:
    body, headers = related(eol, "part", content, quoted="'" if eol == "\n" else '"')
    answer = http.post(f"/upload/storage/v1/b/{bucket.name}/o?uploadType=multipart", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["contentType"] == "text/special"
    assert bucket.blob("part").download_as_bytes() == content


@pytest.mark.parametrize("eol", ["\r\n", "\n"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_multipart_body_may_be_torn_anywhere(eol: str, step: int) -> None:
    content = b"--==bound\r\n--==bound=\n" * 3
    whole, headers = related(eol, "name", content)
    body = RelatedBody(boundary_of(headers["content-type"]))
    media = b"".join(body.feed(whole[start : start + step]) for start in range(0, len(whole), step))
    body.end()
    assert (media, body.resource, body.media_type) == (content, {"name": "name"}, "text/special")


def test_a_cut_multipart_body_stores_nothing(http: httpx.Client, bucket: Any) -> None:
    body, headers = related("\r\n", "cut", b"content")
    for cut in (body[:-15], body[:60], b"nothing"):
        answer = http.post(f"/upload/storage/v1/b/{bucket.name}/o?uploadType=multipart", content=cut, headers=headers)
        assert answer.status_code == 400
        assert "malformed" in answer.json()["error"]["message"]
    assert bucket.get_blob("cut") is None


def test_a_simple_upload_takes_the_hashes_of_the_header(http: httpx.Client, bucket: Any) -> None:
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=simple"
    assert http.post(url, content=b"abc", headers={"x-goog-hash": "crc32c=AAAAAA=="}).status_code == 400
    answer = http.post(url, content=b"abc", headers={"x-goog-hash": "crc32c=Nks/tw==, md5=kAFQmDzST7DWlj99KOF/cg=="})
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["size"], shown["crc32c"], shown["md5Hash"], shown["metageneration"]) == (
        "3",
        "Nks/tw==",
        "kAFQmDzST7DWlj99KOF/cg==",
        "1",
    )


def start_session(http: httpx.Client, bucket: Any, name: str, query: str = "") -> str:
    answer = http.post(f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable{query}", json={"name": name})
    assert answer.status_code == 200, answer.text
    return str(answer.headers["location"])


def test_a_resumable_session_from_start_to_end(http: httpx.Client, bucket: Any) -> None:
    url = start_session(http, bucket, "long")
    status = http.put(url, headers={"content-range": "bytes */*"})
    assert (status.status_code, status.headers.get("range")) == (308, None)
    first = http.put(url, content=b"a" * CHUNK, headers={"content-range": f"bytes 0-{CHUNK - 1}/*"})
    assert (first.status_code, first.headers["range"]) == (308, f"bytes=0-{CHUNK - 1}")
    status = http.put(url, headers={"content-range": "bytes */*"})
    assert status.headers["range"] == f"bytes=0-{CHUNK - 1}"
    gap = http.put(url, content=b"c", headers={"content-range": f"bytes {CHUNK + 5}-{CHUNK + 5}/*"})
    assert gap.status_code == 400
    repeated = b"a" * 10 + b"b" * 10
    last = http.put(url, content=repeated, headers={"content-range": f"bytes {CHUNK - 10}-{CHUNK + 9}/{CHUNK + 10}"})
    assert last.status_code == 200, last.text
    again = http.put(url, headers={"content-range": "bytes */*"})
    assert (again.status_code, again.json()["generation"]) == (200, last.json()["generation"])
    assert bucket.blob("long").download_as_bytes() == b"a" * CHUNK + b"b" * 10


def test_a_resumable_upload_may_come_in_one_piece_or_end_empty(http: httpx.Client, bucket: Any) -> None:
    assert http.put(start_session(http, bucket, "whole"), content=b"all of it").status_code == 200
    assert bucket.blob("whole").download_as_bytes() == b"all of it"
    url = start_session(http, bucket, "two")
    http.put(url, content=b"a" * CHUNK, headers={"content-range": f"bytes 0-{CHUNK - 1}/*"})
    assert http.put(url, headers={"content-range": f"bytes */{CHUNK}"}).status_code == 200
    assert bucket.get_blob("two").size == CHUNK


def test_a_resumable_upload_with_a_wrong_hash_is_over_and_stores_nothing(http: httpx.Client, bucket: Any) -> None:
    url = start_session(http, bucket, "wrong")
    headers = {"content-range": "bytes 0-2/3", "x-goog-hash": "crc32c=AAAAAA=="}
    assert http.put(url, content=b"abc", headers=headers).status_code == 400
    assert http.put(url, headers={"content-range": "bytes */*"}).status_code == 404
    assert bucket.get_blob("wrong") is None


def test_a_condition_holds_at_the_end_of_a_session_too(http: httpx.Client, bucket: Any) -> None:
    url = start_session(http, bucket, "guarded", "&ifGenerationMatch=0")
    bucket.blob("guarded").upload_from_string("earlier")
    answer = http.put(url, content=b"later", headers={"content-range": "bytes 0-4/5"})
    assert answer.status_code == 412
    assert bucket.blob("guarded").download_as_bytes() == b"earlier"
    early = http.post(f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&ifGenerationMatch=0", json={"name": "guarded"})
    assert early.status_code == 412


def test_a_body_that_is_longer_than_its_range_leaves_the_session_as_it_was(http: httpx.Client, bucket: Any) -> None:
    url = start_session(http, bucket, "long")
    surplus = http.put(url, content=b"x" * 50, headers={"content-range": "bytes 0-9/10"})
    assert (surplus.status_code, "the body has more" in surplus.text) == (400, True)
    assert http.put(url, content=b"0123456789", headers={"content-range": "bytes 0-9/10"}).status_code == 200
    assert bucket.blob("long").download_as_bytes() == b"0123456789"


@pytest.mark.parametrize("total", ["*", "10"])
def test_an_open_range_goes_to_the_end_of_the_body_as_node_s_client_means_it(http: httpx.Client, bucket: Any, total: str) -> None:
    url = start_session(http, bucket, "streamed")
    http.put(url, content=b"0123", headers={"content-range": "bytes 0-3/*"})
    last = http.put(url, content=b"456789", headers={"content-range": f"bytes 4-*/{total}"})
    assert (last.status_code, last.json()["size"]) == (200, "10")
    assert bucket.blob("streamed").download_as_bytes() == b"0123456789"


@pytest.mark.parametrize("end", ["finished", "cancelled"])
def test_who_still_writes_to_a_session_that_has_ended_is_told_so(http: httpx.Client, bucket: Any, end: str) -> None:
    """As after a connection that hung: the client has gone on with another one, and the rest of the first one arrives after all."""
    url = start_session(http, bucket, "one")
    host, path = httpx.URL(url).netloc.decode(), httpx.URL(url).raw_path.decode()
    with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port)) as hung:
        head = f"PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Range: bytes 0-99/100\r\nContent-Length: 100\r\n\r\n"
        hung.sendall(head.encode() + b"x" * 40)
        wait_until(
            lambda: http.put(url, headers={"content-range": "bytes */100"}).headers.get("range") == "bytes=0-39", description="40 bytes"
        )
        if end == "finished":
            assert http.put(url, content=b"y" * 60, headers={"content-range": "bytes 40-99/100"}).status_code == 200
        else:
            assert http.delete(url).status_code == 499
        hung.sendall(b"z" * 60)
        assert b"409 Conflict" in hung.recv(1000)
    if end == "finished":
        assert bucket.blob("one").download_as_bytes() == b"x" * 40 + b"y" * 60
    else:
        assert bucket.get_blob("one") is None


def test_a_session_can_be_cancelled(http: httpx.Client, bucket: Any) -> None:
    url = start_session(http, bucket, "never")
    assert http.delete(url).status_code == 499
    assert http.put(url, content=b"x").status_code == 404


def test_downloads_carry_what_clients_check(http: httpx.Client, bucket: Any) -> None:
    blob = bucket.blob("a/b c")
    blob.upload_from_string("0123456789")
    for prefix in ("/storage/v1", "/download/storage/v1"):
        url = f"{prefix}/b/{bucket.name}/o/{quote('a/b c', safe='')}?alt=media"
        answer = http.get(url)
        assert (answer.status_code, answer.content) == (200, b"0123456789")
        assert answer.headers["x-goog-generation"] == str(blob.generation)
        assert answer.headers["x-goog-hash"] == f"crc32c={blob.crc32c},md5={blob.md5_hash}"
        part = http.get(url, headers={"range": "bytes=8-20"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"89", "bytes 8-9/10")
        beyond = http.get(url, headers={"range": "bytes=10-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")
        assert http.get(url, headers={"range": "lines=1-2"}).status_code == 200


def test_gzip_is_sent_as_stored_only_to_who_takes_it(http: httpx.Client, bucket: Any) -> None:
    packed = gzip.compress(b"text")
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=zipped&contentEncoding=gzip"
    assert http.post(url, content=packed).status_code == 200
    url = f"/storage/v1/b/{bucket.name}/o/zipped?alt=media"
    plain = http.get(url, headers={"accept-encoding": "identity"})
    assert (plain.content, plain.headers.get("content-encoding")) == (b"text", None)
    blob = bucket.blob("composed")
    blob.content_encoding = "gzip"
    blob.compose([bucket.blob("zipped")] * 2)
    composed = http.get(f"/storage/v1/b/{bucket.name}/o/composed?alt=media", headers={"accept-encoding": "identity"})
    assert composed.content == b"texttext"
    taken = http.get(url, headers={"accept-encoding": "gzip"})
    assert (taken.content, taken.headers["content-encoding"], taken.headers["content-length"]) == (b"text", "gzip", str(len(packed)))


@pytest.mark.parametrize(
    ("content", "cache_control"), [(gzip.compress(b"text", mtime=0), "no-transform"), (b"no gzip at all", "public")], ids=["must", "can"]
)
def test_what_must_not_or_cannot_be_unzipped_is_sent_as_stored(http: httpx.Client, bucket: Any, content: bytes, cache_control: str) -> None:
    blob = bucket.blob("stored")
    blob.content_encoding, blob.cache_control = "gzip", cache_control
    blob.upload_from_string(content)
    with http.stream("GET", f"/storage/v1/b/{bucket.name}/o/stored?alt=media", headers={"accept-encoding": "identity"}) as answer:
        assert (answer.headers["content-encoding"], b"".join(answer.iter_raw())) == ("gzip", content)


def test_errors_are_the_real_json_and_for_media_plain_text(http: httpx.Client, bucket: Any) -> None:
    message = f"No such object: {bucket.name}/nope"
    answer = http.get(f"/storage/v1/b/{bucket.name}/o/nope")
    assert answer.json() == {
        "error": {"code": 404, "message": message, "errors": [{"message": message, "domain": "global", "reason": "notFound"}]}
    }
    assert http.get(f"/storage/v1/b/{bucket.name}/o/nope?alt=media").text == message
    bad = [
        http.get(f"/storage/v1/b/{bucket.name}/o/nope?ifGenerationMatch=x"),
        http.get(f"/storage/v1/b/{bucket.name}/o?pageToken=!!"),
        http.get(f"/storage/v1/b/{bucket.name}/o/%ff"),
        http.post("/storage/v1/b?project=p", content=b"{broken"),
        http.post("/storage/v1/b?project=p", json=["list"]),
        http.post(f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media", content=b"no name"),
        http.post(f"/storage/v1/b/{bucket.name}/o/x/compose", json={"sourceObjects": "x"}),
    ]
    assert [answer.status_code for answer in bad] == [400] * len(bad)
    for unknown in ("/storage/v1/what", f"/storage/v1/b/{bucket.name}/iam", f"/storage/v1/b/{bucket.name}/o/not/encoded"):
        answer = http.get(unknown)  # no 501, on which gcloud tries again for a minute
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, f"The local Cloud Storage has no GET {unknown}")


# What Python's reader of JSON takes, but no answer can hold: it would have been stored, and broken every later list.
UNSPEAKABLE = [b'"\\ud800"', b"NaN", b"-Infinity", b"1e999", b"[" * 100_000]


@pytest.mark.parametrize("value", UNSPEAKABLE, ids=range(len(UNSPEAKABLE)))
def test_what_no_answer_can_hold_is_refused_and_not_kept(http: httpx.Client, bucket: Any, value: bytes) -> None:
    blob = bucket.blob("kept")
    blob.upload_from_string("content")
    body = b'{"name": "poisoned", "labels": {"a": ' + value + b"}}"
    change = b'{"contentType": ' + value + b', "metadata": {"a": ' + value + b"}}"
    start = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=poisoned"
    refused = [
        http.post("/storage/v1/b?project=p", content=body),
        http.patch(f"/storage/v1/b/{bucket.name}", content=body),
        http.patch(f"/storage/v1/b/{bucket.name}/o/kept", content=change),
        http.post(start, content=change),
    ]
    assert [answer.status_code for answer in refused] == [400] * len(refused)
    assert [found["name"] for found in http.get(f"/storage/v1/b/{bucket.name}/o").json()["items"]] == ["kept"]
    assert http.get("/storage/v1/b?project=p").status_code == 200


def test_values_of_the_wrong_kind_are_refused(http: httpx.Client, bucket: Any) -> None:
    bucket.blob("kept").upload_from_string("content")
    bad = [
        http.get("/storage/v1/b?project=p&maxResults=-1"),
        http.patch(f"/storage/v1/b/{bucket.name}/o/kept", json={"customTime": "yesterday"}),
        http.post(f"/storage/v1/b/{bucket.name}/o/x/compose", json={"sourceObjects": [{"name": "kept"}], "destination": ["contentType"]}),
        http.post(f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=x", json={"metadata": 5}),
    ]
    assert [answer.status_code for answer in bad] == [400] * len(bad)


def test_health_and_clock(http: httpx.Client) -> None:
    assert http.get("/").json()["service"] == "storage"
    before = http.get("/clock").json()["now"]
    assert http.post("/clock/advance", json={"seconds": 5}).json()["now"] >= before + 5
