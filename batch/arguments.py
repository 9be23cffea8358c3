"""What callers give a bucket, checked in one place for every store and context, before anything is asked: a wrong argument is its caller's
mistake, never a service's.

The rules for names are those of Cloud Storage ("Object naming guidelines").
"""

from __future__ import annotations

import os

MAX_NAME_BYTES = 1024
_SHOWN = 100


def object_name(name: object, what: str = "an object's name") -> str:
    """The name itself. Raises TypeError, ValueError."""
    text = _text(name, what)
    if not text:
        raise ValueError(f"{what} is empty: name an object, such as 'reports/2026.csv'")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(
            f"{what}, {text[:_SHOWN]!a}, holds half a character (a surrogate), which cannot be stored: clean the text"
        ) from None
    if size > MAX_NAME_BYTES:
        raise ValueError(f"{what}, {text[:_SHOWN]!r}…, has {size:,} bytes: Cloud Storage takes at most {MAX_NAME_BYTES:,}")
    if "\n" in text or "\r" in text:
        raise ValueError(f"{what}, {text[:_SHOWN]!r}, holds the end of a line, which Cloud Storage refuses")
    if text in (".", "..") or text.startswith(".well-known/acme-challenge/"):
        raise ValueError(f"{what} must not be {text[:_SHOWN]!r}: Cloud Storage refuses it")
    return text


def name_prefix(prefix: object) -> str:
    """What the names of a listing begin with; empty for all. Raises TypeError, ValueError."""
    return object_name(prefix, "a prefix of names") if prefix != "" else ""


def content(data: object) -> bytes:
    """The content of an object. Raises TypeError unless it is bytes-like."""
    if isinstance(data, bytes):
        return data
    try:
        return memoryview(data).tobytes()  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"an object's content must be bytes, got {_kind(data)}{_hint(data)}") from None


def file_path(path: object) -> str:
    """A file's path, absolute: the working directory may be another one by the time the file is opened. Raises TypeError, ValueError."""
    if not isinstance(path, str | os.PathLike) or not isinstance(text := os.fspath(path), str):
        raise TypeError(f"a file's path must be a text or a pathlib.Path, got {_kind(path)}")
    if not text or "\0" in text:
        raise ValueError(f"a file's path must be a path such as '/tmp/data.csv', got {text[:_SHOWN]!r}")
    return os.path.abspath(text)


def max_bytes(value: object) -> int | None:
    """How large a content may be; None for no limit. Raises TypeError, ValueError."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"max_bytes must be a whole number, got {_kind(value)}")
    if value < 0:
        raise ValueError(f"max_bytes must not be negative, got {value}")
    return value


def content_type(value: object) -> str:
    """The media type of an object. Raises TypeError, ValueError."""
    text = _text(value, "content_type")
    if not text or not text.isprintable() or not text.isascii():  # it travels in a head, which takes no other letters
        raise ValueError(f"content_type must be a media type such as 'text/plain', got {text[:_SHOWN]!a}")
    return text


def _text(value: object, what: str) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"{what} must be a text, got {_kind(value)}")


def _kind(value: object) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return name if name == "bytes" else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _hint(data: object) -> str:
    if isinstance(data, str):
        return "; give bytes: text.encode()"
    if isinstance(data, dict | list | tuple | int | float):
        return "; give bytes: json.dumps(...).encode()"
    return "; give bytes: file.read()" if hasattr(data, "read") else ""
