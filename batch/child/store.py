"""The bucket as a child sees it: every call is a question to the worker, which has the real client. Both ends stand here.

What a service said to the worker is raised in the child, as the same type with the same words. Of files only the path travels: the worker
sees the same files, and may do with them no more than the child may.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from batch import arguments
from batch.child.wire import Frame
from batch.model.errors import (
    DependencyError,
    DependencyForbidden,
    DependencyMissing,
    DependencyUnavailable,
    FanoutError,
    NameRefused,
    ObjectDamaged,
    ObjectMissing,
    ObjectTooLarge,
    PreconditionFailed,
    ServiceRefused,
    text_of,
)
from batch.services.ports import ObjectInfo, ObjectStore

_TRANSFERS = frozenset({"download", "upload"})
_METHODS = _TRANSFERS | {"write", "read", "read_stored", "read_with_info", "info", "list", "patch_metadata", "delete"}
Ask = Callable[[dict[str, Any], bytes], Frame]
"""Sends a question and waits for the answer."""


class RemoteStore:
    """Implements `batch.services.ports.ObjectStore` in the child; safe from any thread if `ask` is."""

    def __init__(self, bucket_name: str, ask: Ask) -> None:
        self.bucket_name = bucket_name
        self._ask = ask

    def write(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        options = _options(name, content_type, metadata, if_generation)
        return _info(self._call("write", arguments.content(data), **options).header["info"])

    def read(self, name: str) -> bytes:
        return self._call("read", name=arguments.object_name(name)).body

    def read_stored(self, name: str, max_bytes: int | None = None) -> tuple[bytes, bytes | None]:
        answer = self._call("read_stored", name=arguments.object_name(name), max_bytes=arguments.max_bytes(max_bytes))
        size = answer.header["size"]
        return (answer.body[:size], answer.body[size:]) if answer.header["is_zipped"] else (answer.body, None)

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        answer = self._call("read_with_info", name=arguments.object_name(name))
        return answer.body, _info(answer.header["info"])

    def download(self, name: str, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> ObjectInfo:
        name, path, max_bytes = arguments.object_name(name), arguments.file_path(path), arguments.max_bytes(max_bytes)
        return _info(self._call("download", name=name, path=path, max_bytes=max_bytes).header["info"])

    def upload(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        options = _options(name, content_type, metadata, if_generation)
        return _info(self._call("upload", path=arguments.file_path(path), **options).header["info"])

    def info(self, name: str) -> ObjectInfo | None:
        told = self._call("info", name=arguments.object_name(name)).header["info"]
        return None if told is None else _info(told)

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        told = self._call("list", prefix=arguments.name_prefix(prefix), start=arguments.name_prefix(start))
        yield from [_info(one) for one in told.header["infos"]]

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        return _info(self._call("patch_metadata", name=arguments.object_name(name), metadata=dict(metadata)).header["info"])

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        return bool(self._call("delete", name=arguments.object_name(name), if_generation=if_generation).header["deleted"])

    def _call(self, method: str, body: bytes = b"", **options: Any) -> Frame:
        answer = self._ask({"kind": "ask", "method": method, "options": options}, body)
        if "error" in answer.header:
            raise unpacked(answer.header["error"])
        return answer


def _options(name: str, content_type: str, metadata: Mapping[str, str] | None, if_generation: int | None) -> dict[str, Any]:
    return {
        "name": arguments.object_name(name),
        "content_type": arguments.content_type(content_type),
        "metadata": None if metadata is None else dict(metadata),
        "if_generation": if_generation,
    }


def _info(told: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(**told)


def takes_long(question: Frame) -> bool:
    """Whether a file of any size goes up or comes down: others that the worker has to do must not wait for that."""
    return question.header.get("method") in _TRANSFERS


def answered(store: ObjectStore, question: Frame) -> Frame:
    """The worker's end: do what the child asks for. Never raises."""
    try:
        header, body = _done(store, str(question.header["method"]), dict(question.header["options"]), question.body)
    except BaseException as error:  # noqa: BLE001 - every error belongs to the handler that asked
        header, body = {"error": packed(error)}, b""
    return Frame({"kind": "reply", **header}, body)


def _done(store: ObjectStore, method: str, options: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    if method not in _METHODS:
        raise ValueError(f"a bucket has no method {method!r}")
    answer = getattr(store, method)(**options, **({"data": body} if method == "write" else {}))
    if method == "read":
        return {}, answer
    if method == "read_stored":
        content, stored = answer
        return {"size": len(content), "is_zipped": stored is not None}, content + (stored or b"")
    if method == "read_with_info":
        return {"info": _told(answer[1])}, answer[0]
    if method == "list":
        return {"infos": [_told(one) for one in answer]}, b""
    return ({"deleted": answer} if method == "delete" else {"info": _told(answer)}), b""


def _told(info: ObjectInfo | None) -> dict[str, Any] | None:
    return None if info is None else {**asdict(info), "metadata": dict(info.metadata)}


_OURS = (
    DependencyError,
    DependencyMissing,
    DependencyForbidden,
    DependencyUnavailable,
    NameRefused,
    ObjectDamaged,
    ServiceRefused,
    FanoutError,
)
_MADE_OF: dict[type, tuple[str, ...]] = {
    ObjectMissing: ("name",),
    ObjectTooLarge: ("name", "max_bytes"),
    PreconditionFailed: ("name", "if_generation"),
}
"""The attributes that an error is made of; others are made of their text."""
_KNOWN: dict[str, type[Exception]] = {
    one.__name__: one for one in (*_MADE_OF, *_OURS, TypeError, ValueError, NotImplementedError, OSError, MemoryError)
}


def packed(error: BaseException) -> dict[str, Any]:
    """An error as JSON."""
    kind = next((one for one in type(error).__mro__ if one in _KNOWN.values()), type(error))
    if isinstance(error, OSError) and isinstance(error.errno, int):  # its class follows from its number
        file = () if error.filename is None else (str(error.filename),)
        return {"type": "OSError", "of": [error.errno, str(error.strerror), *file]}
    made_of = _MADE_OF.get(kind)
    return {"type": kind.__name__, "of": [getattr(error, one) for one in made_of] if made_of else [text_of(error)]}


def unpacked(told: dict[str, Any]) -> BaseException:
    """The error again; a type that is not known here becomes a RuntimeError that names it."""
    known = _KNOWN.get(told["type"])
    return RuntimeError(f"{told['type']}: {told['of'][0]}") if known is None else known(*told["of"])
