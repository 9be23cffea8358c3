"""A bucket in memory, with generations and preconditions. It passes the same conformance suite as the real client."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace

from batch import arguments
from batch.files import new_file, whole_file
from batch.model.clock import Clock
from batch.model.errors import ObjectMissing, ObjectTooLarge, PreconditionFailed
from batch.services.ports import ObjectInfo
from batch.testing.clock import ManualClock
from batch.testing.faults import Faults


class MemoryObjectStore(Faults):
    """Implements `batch.services.ports.ObjectStore`; safe from any thread.

    `fail_next("write", DependencyUnavailable("…"))` scripts errors.
    """

    def __init__(self, bucket_name: str = "memory", *, clock: Clock | None = None) -> None:
        super().__init__()
        self.bucket_name = bucket_name
        self._clock: Clock = clock or ManualClock()
        self._lock = threading.RLock()
        self._objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self._generation = 0

    def write(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        name, data, content_type = arguments.object_name(name), arguments.content(data), arguments.content_type(content_type)
        with self._fault("write"):
            return self._put(name, data, content_type, metadata, if_generation)

    def upload(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        name, path, content_type = arguments.object_name(name), arguments.file_path(path), arguments.content_type(content_type)
        with whole_file(path) as file, self._fault("upload"):
            return self._put(name, file.read(), content_type, metadata, if_generation)

    def _put(self, name: str, data: bytes, content_type: str, metadata: Mapping[str, str] | None, if_generation: int | None) -> ObjectInfo:
        with self._lock:
            self._demand(name, if_generation)
            self._generation += 1
            info = ObjectInfo(
                name=name,
                generation=self._generation,
                size=len(data),
                metadata=dict(metadata or {}),
                content_type=content_type,
                updated_s=self._clock.now(),
                crc32c=_crc32c(data),
            )
            self._objects[name] = (data, info)
            return info

    def read(self, name: str) -> bytes:
        name = arguments.object_name(name)
        with self._fault("read"), self._lock:
            return self._found(name)[0]

    def read_stored(self, name: str, max_bytes: int | None = None) -> tuple[bytes, bytes | None]:
        """Nothing is zipped here."""
        data, max_bytes = self.read(name), arguments.max_bytes(max_bytes)
        if max_bytes is not None and len(data) > max_bytes:
            raise ObjectTooLarge(name, max_bytes)
        return data, None

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        name = arguments.object_name(name)
        with self._fault("read_with_info"), self._lock:
            return self._found(name)

    def download(self, name: str, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> ObjectInfo:
        name, path, max_bytes = arguments.object_name(name), arguments.file_path(path), arguments.max_bytes(max_bytes)
        with self._lock:
            found = self._objects.get(name)
        with self._fault("download"):
            if found is None:
                raise ObjectMissing(name)
            data, info = found
            if max_bytes is not None and len(data) > max_bytes:
                raise ObjectTooLarge(name, max_bytes)
            with new_file(path) as file:
                file.append(data)
            return info

    def info(self, name: str) -> ObjectInfo | None:
        name = arguments.object_name(name)
        with self._fault("info"), self._lock:
            found = self._objects.get(name)
            return found[1] if found else None

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        """What is there when the first object is asked for."""
        prefix, first = arguments.name_prefix(prefix), arguments.name_prefix(start).encode()
        with self._fault("list"), self._lock:
            found = [self._objects[name][1] for name in self.names(prefix) if name.encode() >= first]
        yield from found

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """The names below `prefix`, in order (of their UTF-8, as the service lists them); no fault ever meets it."""
        with self._lock:
            return tuple(sorted((name for name in self._objects if name.startswith(prefix)), key=str.encode))

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        name = arguments.object_name(name)
        with self._fault("patch_metadata"), self._lock:
            data, info = self._found(name)
            patched = replace(info, metadata={**info.metadata, **metadata}, updated_s=self._clock.now())
            self._objects[name] = (data, patched)
            return patched

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        name = arguments.object_name(name)
        with self._fault("delete"), self._lock:
            if name not in self._objects:
                return False
            self._demand(name, if_generation)
            del self._objects[name]
            return True

    def _found(self, name: str) -> tuple[bytes, ObjectInfo]:
        found = self._objects.get(name)
        if found is None:
            raise ObjectMissing(name)
        return found

    def _demand(self, name: str, if_generation: int | None) -> None:
        found = self._objects.get(name)
        if if_generation is not None and if_generation != (found[1].generation if found else 0):
            raise PreconditionFailed(name, if_generation)


def _crc32c(data: bytes) -> str:
    """As Cloud Storage gives it: big-endian, base64."""
    import google_crc32c

    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
