"""Bodies of requests: read to their end, never more of them held than is allowed. Those of many tasks go to a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from fastapi import Request

from intake.problems import RequestRefused, Wrong

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""What Cloud Run lets through. A body up to this size is read to its end even when it is refused: most clients look for the
answer only after they have sent everything. Of a larger or endless one no more than this is read."""
RETRY_AFTER_S = 2
NO_BUCKET = "this front door has no bucket, which holds submissions and what became of tasks: set BUCKET_NAME"
PACKED = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})


def key_of(request: Request) -> str | None:
    """Its Idempotency-Key. What is UTF-8 is read as that, so that it is the key that a task's `idempotency_key` would be. Raises
    RequestRefused (422) for two of them."""
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1:
        text = f"Idempotency-Key: there are {len(keys)} of them; send one"
        raise RequestRefused(422, text, wrong=[Wrong(pointer="Idempotency-Key", detail=text)])
    if not keys:
        return None
    with suppress(UnicodeDecodeError):
        return keys[0].encode("latin-1").decode()
    return keys[0]


async def body_of(request: Request, max_bytes: int) -> bytes:
    """The body, never holding more than `max_bytes` of it. Raises RequestRefused (413)."""
    parts: list[bytes] = []
    advice = "put large data into the bucket and name the object instead"
    await _received(request, max_bytes, parts.append, parts.clear, advice)
    return b"".join(parts)


class Spools:
    """Room for the bodies of a few requests with many tasks. A temporary folder on Cloud Run is memory: hence the bound."""

    def __init__(self, max_count: int) -> None:
        self._max_count, self._count = max_count, 0

    @asynccontextmanager
    async def spooled(self, request: Request) -> AsyncIterator[Path]:
        """The file that holds the body, until the end of the request. Raises RequestRefused: 503 if there is no room, 413."""
        if self._count >= self._max_count:
            await _received(request, MAX_REQUEST_BYTES, lambda _piece: None, lambda: None, "")
            text = f"{self._count} requests with many tasks are under way, which is as many as this service takes; send the request again"
            raise RequestRefused(503, text, retry_after_s=RETRY_AFTER_S)
        self._count += 1
        try:
            with kept():
                temporary = tempfile.TemporaryDirectory(prefix="fanout-intake-")
            with temporary as folder:
                path = Path(folder, "body")
                with kept(), path.open("wb") as file:
                    advice = "send the rest as parts of an open submission (open=true), or put it into the bucket and name it as source"
                    await _received(request, MAX_REQUEST_BYTES, file.write, lambda: None, advice)
                yield path
        finally:
            self._count -= 1


@contextmanager
def kept() -> Iterator[None]:
    """Raises RequestRefused (503) where the temporary folder, which may be memory, is full."""
    try:
        yield
    except OSError as error:
        text = f"no room for the tasks in the temporary folder ({error.strerror or error}): give the service more memory, or send fewer"
        raise RequestRefused(503, text, retry_after_s=RETRY_AFTER_S) from error


async def _received(request: Request, max_bytes: int, take: Callable[[bytes], object], drop: Callable[[], object], advice: str) -> None:
    """Every piece of the body goes to `take`; when there are too many, what was taken is dropped. Raises RequestRefused (413; 415 if it
    is packed: its length would say nothing of what it becomes)."""
    packed = request.headers.get("content-encoding", "")
    if packed.lower() in PACKED:
        raise RequestRefused(415, f"the body is packed (Content-Encoding: {packed}): send it as it is")
    error = f"the body is larger than {max_bytes} bytes; {advice}"
    declared = request.headers.get("content-length", "")
    waits = request.headers.get("expect", "").lower() == "100-continue"
    if declared.isdigit() and int(declared) > (max_bytes if waits else MAX_REQUEST_BYTES):
        raise RequestRefused(413, error)
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_REQUEST_BYTES:
            break
        if size <= max_bytes:
            take(part)
        else:
            drop()
    if size > max_bytes:
        raise RequestRefused(413, error)
