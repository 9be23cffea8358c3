"""The wire itself, where other clients differ from the Python one: line ends, resumable sessions, raw paths, error JSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from local_cloud.storage.multipart import RelatedBody, boundary_of

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
    taken = http.get(url, headers={"accept-encoding": "gzip"})
    assert (taken.content, taken.headers["content-encoding"], taken.headers["content-length"]) == (b"text", "gzip", str(len(packed)))


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
    assert http.get("/storage/v1/what").status_code == 501


def test_health_and_clock(http: httpx.Client) -> None:
    assert http.get("/").json()["service"] == "storage"
    before = http.get("/clock").json()["now"]
    assert http.post("/clock/advance", json={"seconds": 5}).json()["now"] >= before + 5
