"""Digests of a file's content, in the notations that people compare. Computed from the bytes read, never copied from metadata."""

from __future__ import annotations

import base64
import hashlib


def crc32c(data: bytes) -> str:
    """Base64 of the big-endian CRC32C: what Cloud Storage gives as an object's `crc32c`."""
    import google_crc32c

    digest: bytes = google_crc32c.Checksum(data).digest()
    return base64.b64encode(digest).decode()


def sha256(data: bytes) -> str:
    """Hexadecimal, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    """Hexadecimal, as `md5sum` prints it. It finds accidents, not forgeries."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
