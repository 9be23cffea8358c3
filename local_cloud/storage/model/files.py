"""Objects as plain files below the state folder: the location for a name, staged content, and reading.

Nothing is ever written outside the state folder: a location is either built from harmless path segments or escaped.

```
<root>/buckets/<bucket>/<object name as path>    what a person can open
<root>/escaped/<bucket>/<quoted name>-<hash>     names that cannot be a path, or not beside the others
<root>/staging/<token>                           content that is not an object yet
```
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import google_crc32c

from local_cloud.storage.model.errors import InvalidArgument

_BLOCK_BYTES = 1024 * 1024
_SEGMENT_LIMIT_BYTES = 255  # of ext4, APFS and most other file systems


class Staged:
    """Content that grows block by block in a file of its own, and is hashed as it grows. One writer at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.token = path.name
        self.size = 0
        self._crc32c = google_crc32c.Checksum()
        self._md5 = hashlib.md5(usedforsecurity=False)
        if path.exists():
            with path.open("rb") as file:
                for block in blocks(file):
                    self._count(block)
        self._file = path.open("ab", buffering=0)

    def _count(self, data: bytes) -> None:
        self.size += len(data)
        self._crc32c.update(data)
        self._md5.update(data)

    def write(self, data: bytes) -> None:
        """All of `data` or, with an OSError, nothing; what is written survives the end of this process."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self.size)
            raise
        self._count(data)

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    @property
    def crc32c(self) -> str:
        """Base64 of the big-endian CRC32C, as in the object JSON."""
        digest: bytes = self._crc32c.digest()
        return base64.b64encode(digest).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(self._md5.digest()).decode()

    def check(self, header: Mapping[str, str], resource: Mapping[str, Any]) -> None:
        """Compare with the client's hashes in the header `x-goog-hash` and in the object's resource, if given. Raises InvalidArgument."""
        for crc32c, md5 in ((header.get("crc32c"), header.get("md5")), (resource.get("crc32c"), resource.get("md5Hash"))):
            if crc32c and crc32c != self.crc32c:
                raise InvalidArgument(f'Provided CRC32C "{crc32c}" doesn\'t match calculated CRC32C "{self.crc32c}".')
            if md5 and md5 != self.md5:
                raise InvalidArgument(f'Provided MD5 hash "{md5}" doesn\'t match calculated MD5 hash "{self.md5}".')


class Files:
    """The files below `root`. The caller serialises `locate`, `publish`, `adopt` and `remove`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = root / "staging"
        self._staging.mkdir(parents=True, exist_ok=True)
        # The locations below buckets/ that are files and that are folders, as `_fold` spells them.
        self._taken: set[str] = set()
        self._folders: Counter[str] = Counter()

    def stage(self, prefix: str = "") -> Staged:
        return Staged(self._staging / f"{prefix}{secrets.token_hex(12)}")

    def restage(self, token: str) -> Staged | None:
        """Staged content of an earlier process, with its hashes; None if there is none."""
        path = self._staging / token
        return Staged(path) if path.exists() else None

    def staged_tokens(self) -> set[str]:
        return set(os.listdir(self._staging))

    def discard(self, token: str) -> None:
        (self._staging / token).unlink(missing_ok=True)

    def locate(self, bucket: str, name: str) -> str:
        """A free location for a new object, relative to the root; its folder exists."""
        location = plain_location(bucket, name)
        if location is None or not self._is_free(location):
            return escaped_location(bucket, name)
        return location

    def _is_free(self, location: str) -> bool:
        key = _fold(location)
        if key in self._taken or key in self._folders or any(folder in self._taken for folder in _folders_of(key)):
            return False
        if self.obstacle(location):
            return False
        path = self._root / location
        path.parent.mkdir(parents=True, exist_ok=True)
        return not os.path.lexists(path)

    def obstacle(self, location: str) -> Path | None:
        """What a person has put in the way of a file at `location`: a folder in its place, or on the path to it something that is no
        folder.

        A symbolic link to a folder counts, as nothing is ever written outside the state folder.
        """
        path = self._root
        *folders, name = location.split("/")
        for folder in folders:
            path /= folder
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                return None
            if not stat.S_ISDIR(mode):
                return path
        path /= name
        return path if path.is_dir() and not path.is_symlink() else None

    def publish(self, token: str, location: str) -> None:
        """Move staged content to its location, over the old file; a reader of the old content keeps it."""
        source, target = self._staging / token, self._root / location
        try:
            os.rename(source, target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, target)
        self.adopt(location)

    def adopt(self, location: str) -> None:
        """Remember that an object lives there."""
        key = _fold(location)
        if key not in self._taken:
            self._taken.add(key)
            self._folders.update(_folders_of(key))

    def remove(self, location: str) -> None:
        """Remove a file and the folders that it leaves empty; what a person has put in their place stays."""
        path = self._root / location
        if self.obstacle(location) is None:
            path.unlink(missing_ok=True)
        key = _fold(location)
        if key in self._taken:
            self._taken.remove(key)
            for folder in _folders_of(key):
                self._folders[folder] -= 1
                if not self._folders[folder]:
                    del self._folders[folder]
        bucket_folder = self._root / Path(*Path(location).parts[:2])
        with contextlib.suppress(OSError):  # stop at the first folder that still holds something
            for folder_path in path.parents:
                if folder_path == bucket_folder:
                    break
                folder_path.rmdir()

    def open(self, location: str) -> BinaryIO:
        """Raises OSError if a person removed the file, or put something else in its place."""
        return (self._root / location).open("rb")

    def make_bucket(self, bucket: str) -> None:
        with contextlib.suppress(FileExistsError):  # a person's file: the bucket's objects go to `escaped` then
            (self._root / "buckets" / bucket).mkdir(parents=True, exist_ok=True)

    def remove_bucket(self, bucket: str) -> None:
        for kind in ("buckets", "escaped"):
            with contextlib.suppress(OSError):  # it does not exist, or holds files of a person
                (self._root / kind / bucket).rmdir()


def blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def plain_location(bucket: str, name: str) -> str | None:
    """`buckets/<bucket>/<name>` if every segment of the name is a harmless file name, else None."""
    for segment in name.split("/"):
        if segment in ("", ".", "..") or len(segment.encode()) > _SEGMENT_LIMIT_BYTES or not segment.isprintable():
            return None
    return f"buckets/{bucket}/{name}"


def escaped_location(bucket: str, name: str) -> str:
    """A flat file name that is unique for the name, and still shows a person which one it is."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:24]
    return f"escaped/{bucket}/{quote(name, safe='')[:150]}-{digest}"


def _fold(location: str) -> str:
    """Equal for locations that some file system takes for the same: macOS ignores case and composes accents."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", location).casefold())


def _folders_of(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(3, len(parts))]
