"""The seam to Cloud Storage: what an object is, and what one bucket can do. Implementations translate every error.

Two implementations pass one conformance suite: `batch.google_objects.GoogleObjectStore` (real client) and
`batch.testing.MemoryObjectStore`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object at one generation. `updated_s` is Unix seconds; `crc32c` is base64 as the service gives it."""

    name: str
    generation: int
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    updated_s: float = 0.0
    crc32c: str = ""


class ObjectStore(Protocol):
    """One bucket. All methods may raise DependencyError; those that name a generation raise PreconditionFailed."""

    bucket_name: str

    def check(self) -> None:
        """Raise DependencyMissing or DependencyForbidden when the bucket cannot be used."""

    def write(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        """Write an object. `if_generation=0`: only if absent. Without it the write replaces whatever is there.

        After a lost response the client's own retry may find its own object: callers that pass `if_generation`
        compare the metadata before they believe a PreconditionFailed.
        """

    def read(self, name: str) -> bytes:
        """The content. Raises ObjectMissing."""

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        """Content and info of the same generation. Raises ObjectMissing."""

    def info(self, name: str) -> ObjectInfo | None:
        """None when there is no such object."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below `prefix`, in the order of their names, with their metadata."""

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        """Merge `metadata` into the object's. Raises ObjectMissing."""

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        """False when there was no such object."""
