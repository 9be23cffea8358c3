"""The wire between a worker and its child: frames over a Unix socket. Each frame is a JSON object, and bytes beside it.

Large bytes travel as an open file without a name: nothing is left behind when a process dies. What a handler prints never comes here.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import tempfile
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

PREFIX = struct.Struct(">IQB")
"""Bytes of the JSON text, bytes of the body, and whether the body is a file."""
MAX_INLINE_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 256 * 1024 * 1024
READ_BYTES = 256 * 1024
MAX_FILES = 8


class Garbled(Exception):
    """What came over the wire is no frame: somebody else wrote there."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`header["kind"]` says what it is; `body` are bytes that need no JSON."""

    header: dict[str, Any]
    body: bytes = b""

    @property
    def kind(self) -> str:
        return str(self.header.get("kind", ""))


@dataclass(slots=True)
class Decoder:
    """Makes frames of what a socket gives in pieces."""

    _data: bytearray = field(default_factory=bytearray)
    _files: deque[int] = field(default_factory=deque)

    def feed(self, data: bytes, files: list[int]) -> None:
        self._data += data
        self._files += files

    def next(self) -> Frame | None:
        """The next whole frame. Raises Garbled."""
        if len(self._data) < PREFIX.size:
            return None
        header_bytes, body_bytes, in_file = PREFIX.unpack_from(self._data)
        if header_bytes > MAX_HEADER_BYTES or in_file > 1 or (body_bytes > MAX_INLINE_BYTES and not in_file):
            raise Garbled("a prefix that no frame has")
        end = PREFIX.size + header_bytes + (0 if in_file else body_bytes)
        if len(self._data) < end:
            return None
        header = _header(bytes(self._data[PREFIX.size : PREFIX.size + header_bytes]))
        body = self._from_file(body_bytes) if in_file else bytes(self._data[PREFIX.size + header_bytes : end])
        del self._data[:end]
        return Frame(header, body)

    def close(self) -> None:
        """Close the files that nobody has read."""
        while self._files:
            os.close(self._files.popleft())

    def _from_file(self, size: int) -> bytes:
        if not self._files:
            raise Garbled("a frame without its file")
        with os.fdopen(self._files.popleft(), "rb") as file:
            file.seek(0)
            body = file.read(size)
        if len(body) != size:
            raise Garbled(f"a file of {len(body)} bytes where {size} were told")
        return body


def _header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"a header that is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise Garbled("a header that is no object")
    return header


class Link:
    """One end of the wire. Any thread may send; one receives. Raises OSError when the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        self._connection = connection
        self._sending = threading.Lock()
        self.decoder = Decoder()

    def fileno(self) -> int:
        return self._connection.fileno()

    def limit_sends(self, timeout_s: float) -> None:
        """A send that takes longer raises OSError (BlockingIOError): the other end does not read."""
        seconds = int(timeout_s)
        self._connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, int((timeout_s - seconds) * 1_000_000))
        )

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        text = json.dumps(header).encode()
        if len(body) <= MAX_INLINE_BYTES:
            with self._sending:
                self._connection.sendall(PREFIX.pack(len(text), len(body), 0) + text + body)
            return
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            data = PREFIX.pack(len(text), len(body), 1) + text
            with self._sending:
                sent = socket.send_fds(self._connection, [data], [file.fileno()])
                self._connection.sendall(data[sent:])

    def take(self) -> bool:
        """Take what has come, waiting for it; False when the other end is gone."""
        data, files, _flags, _address = socket.recv_fds(self._connection, READ_BYTES, MAX_FILES)
        for file in files:
            os.set_inheritable(file, False)
        self.decoder.feed(data, files)
        return bool(data)

    def receive(self) -> Frame | None:
        """The next frame, waiting for it; None when the other end is gone. Raises Garbled."""
        while (frame := self.decoder.next()) is None:
            try:
                if not self.take():
                    return None
            except ConnectionError:
                return None
        return frame

    def close(self) -> None:
        self.decoder.close()
        self._connection.close()
