"""The model of Cloud Storage: buckets, and objects with generations and preconditions, on plain files; no HTTP.

What a call has returned is in the store and survives a kill. The content is written first, then its record, then it moves to its place: so
there is never an object without its content, nor new content under an old generation.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from local_cloud.clock import Clock
from local_cloud.storage.model.conditions import NO_CONDITIONS, Conditions
from local_cloud.storage.model.errors import Conflict, Damaged, InvalidArgument, NotFound, StorageError
from local_cloud.storage.model.files import Files, Staged, blocks
from local_cloud.storage.model.keeping import check_kept, check_payer
from local_cloud.storage.model.listing import ListQuery, Page, page_of
from local_cloud.storage.model.notifications import Notifications
from local_cloud.storage.model.records import (
    BUCKET_SERVER_FIELDS,
    Bucket,
    StoredObject,
    check_bucket_name,
    check_object_name,
    merged,
    merged_fields,
)
from local_cloud.storage.model.store import Found, Store

COMPOSE_LIMIT_COUNT = 32
RESUMABLE_PREFIX = "resumable-"


@dataclass(frozen=True, slots=True)
class Ref:
    """An object by name; `generation` None means the live one."""

    bucket: str
    name: str
    generation: int | None = None

    def __str__(self) -> str:
        return f"{self.bucket}/{self.name}" + (f"#{self.generation}" if self.generation is not None else "")


class _Shelf:
    """The objects of one bucket. Their names are in order at every moment, as every list call walks them."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.objects: dict[str, StoredObject] = {}
        self.names: list[str] = []

    def put(self, stored: StoredObject) -> None:
        if stored.name not in self.objects:
            insort(self.names, stored.name)
        self.objects[stored.name] = stored

    def drop(self, name: str) -> None:
        del self.objects[name]
        del self.names[bisect_left(self.names, name)]


class Storage:
    """All calls may come from any thread; each takes effect at one moment."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Load what an earlier process left in `folder`. Raises RuntimeError if another process uses it, ValueError if it is damaged,
        Damaged if a person has put something in the way of a confirmed write."""
        self._clock = clock
        self._lock = threading.RLock()
        self.store = Store(folder)
        try:
            self.files = Files(folder)
            found = self.store.load()
            self._last_generation = found.last_generation
            self.notifications = Notifications(self.store, self._lock)
            self._shelves = {bucket.name: _Shelf(bucket) for bucket in found.buckets}
            for stored in found.objects:
                self._shelves[stored.bucket].put(stored)
            self._repair(found)
        except BaseException:
            self.store.close()
            raise

    def _repair(self, found: Found) -> None:
        """Finish the file operations that a killed process had confirmed, and drop what it had not confirmed."""
        staged = self.files.staged_tokens()
        if found.deleted_location and found.deleted_location not in {stored.location for stored in found.objects}:
            self.files.remove(found.deleted_location)
        for shelf in self._shelves.values():
            self.files.make_bucket(shelf.bucket.name)
            for stored in shelf.objects.values():
                if stored.token in staged:
                    self._check_free_way(stored)
                    self.files.publish(stored.token, stored.location)
                    staged.remove(stored.token)
                else:
                    self.files.adopt(stored.location)
        for token in staged:
            if not token.startswith(RESUMABLE_PREFIX):
                self.files.discard(token)

    def close(self) -> None:
        with self._lock:
            self.store.close()

    # Buckets

    def create_bucket(self, name: str, project: str, resource: Mapping[str, Any]) -> Bucket:
        """Raises InvalidArgument, Conflict."""
        check_bucket_name(name)
        with self._lock:
            if name in self._shelves:
                raise Conflict("Your previous request to create the named bucket succeeded and you already own it.")
            now = self._clock.now()
            bucket = Bucket(name, project, now, now, fields=_bucket_fields({}, resource))
            self.store.save_bucket(bucket)
            self._shelves[name] = _Shelf(bucket)
            self.files.make_bucket(name)
            return bucket

    def bucket(self, name: str, conditions: Conditions = NO_CONDITIONS) -> Bucket:
        """Raises NotFound, PreconditionFailed, NotModified."""
        with self._lock:
            bucket = self._shelf(name).bucket
            conditions.check(bucket, reading=True)
            return bucket

    def check_payer(self, name: str, payer: str) -> None:
        """`payer` is the project that a request for the bucket's objects names, if any. Raises NotFound, UserProjectMissing."""
        with self._lock:
            check_payer(self._shelf(name).bucket, payer)

    def buckets(self, project: str | None = None) -> list[Bucket]:
        """The buckets of one project, or of all, in the order of their names."""
        with self._lock:
            found = [shelf.bucket for shelf in self._shelves.values() if project is None or shelf.bucket.project == project]
        return sorted(found, key=lambda bucket: bucket.name)

    def change_bucket(self, name: str, change: Mapping[str, Any], conditions: Conditions, *, whole: bool = False) -> Bucket:
        """Merge `change` into a bucket's fields, or with `whole` put it in their place. Raises NotFound, PreconditionFailed,
        NotSupported."""
        with self._lock:
            shelf = self._shelf(name)
            conditions.check(shelf.bucket)
            fields = _bucket_fields({} if whole else shelf.bucket.fields, change)
            bucket = replace(shelf.bucket, fields=fields, updated_s=self._clock.now(), metageneration=shelf.bucket.metageneration + 1)
            self.notifications.check(bucket)
            self.store.save_bucket(bucket)
            shelf.bucket = bucket
            return bucket

    def delete_bucket(self, name: str, conditions: Conditions = NO_CONDITIONS) -> None:
        """Raises NotFound, PreconditionFailed, Conflict if it holds objects."""
        with self._lock:
            shelf = self._shelf(name)
            conditions.check(shelf.bucket)
            if shelf.objects:
                raise Conflict("The bucket you tried to delete is not empty.")
            self.notifications.forget(name)
            self.store.delete_bucket(name)
            del self._shelves[name]
            self.files.remove_bucket(name)

    # Objects

    def put(
        self,
        ref: Ref,
        staged: Staged,
        resource: Mapping[str, Any],
        conditions: Conditions = NO_CONDITIONS,
        *,
        component_count: int | None = None,
    ) -> StoredObject:
        """Make `staged` the live generation of an object. `staged` belongs to the model from here on, whatever happens.

        Raises InvalidArgument, NotFound (the bucket), PreconditionFailed, and what `check_kept` raises.
        """
        with self._lock:
            try:
                check_object_name(ref.name)
                stored = self._next_version(ref, staged, merged_fields({}, resource), conditions, component_count)
                staged.close()
                self.store.save_object(stored, self.notifications.of_write(stored, self.peek(ref)))
            except (StorageError, OSError):
                staged.discard()
                raise
            # The record now needs the staged content, also when the move fails: the next start tries it again.
            self.files.publish(staged.token, stored.location)
            self._shelf(ref.bucket).put(stored)
            return stored

    def _next_version(
        self, ref: Ref, staged: Staged, fields: Mapping[str, Any], conditions: Conditions, component_count: int | None
    ) -> StoredObject:
        shelf = self._shelf(ref.bucket)
        live = shelf.objects.get(ref.name)
        conditions.check(live)
        now = self._clock.now()
        if live is not None:
            check_kept(shelf.bucket, live, now)
        stored = StoredObject(
            bucket=ref.bucket,
            name=ref.name,
            generation=self._next_generation(now),
            metageneration=1,
            size=staged.size,
            crc32c=staged.crc32c,
            md5=staged.md5 if component_count is None else None,
            created_s=now,
            updated_s=now,
            location=live.location if live else self.files.locate(ref.bucket, ref.name),
            token=staged.token,
            component_count=component_count,
            fields=fields,
        )
        self._check_free_way(stored)
        return stored

    def get(self, ref: Ref, conditions: Conditions = NO_CONDITIONS, *, reading: bool = True) -> StoredObject:
        """The live object. Raises NotFound, PreconditionFailed, and for `reading` NotModified."""
        with self._lock:
            stored = self._live(ref)
            conditions.check(stored, reading=reading)
            return stored

    def peek(self, ref: Ref) -> StoredObject | None:
        """The live object, or None. Raises NotFound (the bucket)."""
        with self._lock:
            return self._shelf(ref.bucket).objects.get(ref.name)

    def open(self, ref: Ref, conditions: Conditions = NO_CONDITIONS, *, reading: bool = True) -> tuple[StoredObject, BinaryIO]:
        """An object and its content, which stays readable after an overwrite or delete. Raises like `get`, and Damaged."""
        with self._lock:
            stored = self.get(ref, conditions, reading=reading)
            try:
                file = self.files.open(stored.location)
            except (FileNotFoundError, NotADirectoryError):
                raise NotFound(f"No such object: {ref} (its file {stored.location} was removed by hand)") from None
            except IsADirectoryError:
                raise Damaged(f"{stored.location} is a folder now: somebody put it there by hand; move it away") from None
        length = file.seek(0, 2)
        file.seek(0)
        if length != stored.size:
            file.close()
            raise Damaged(
                f"{stored.location} holds {length} bytes, but the object has {stored.size}: "
                "somebody changed the file by hand; upload the object again"
            )
        return stored, file

    def change(self, ref: Ref, resource: Mapping[str, Any], conditions: Conditions = NO_CONDITIONS, *, whole: bool = False) -> StoredObject:
        """Merge `resource` into an object's fields, or with `whole` put it in their place. Raises like `get`, and InvalidArgument."""
        with self._lock:
            live = self._live(ref)
            conditions.check(live)
            fields = merged_fields({} if whole else live.fields, resource)
            stored = replace(live, fields=fields, metageneration=live.metageneration + 1, updated_s=self._clock.now())
            self.store.save_object(stored, self.notifications.of_update(stored))
            self._shelf(ref.bucket).put(stored)
            return stored

    def delete(self, ref: Ref, conditions: Conditions = NO_CONDITIONS) -> None:
        """Raises NotFound, PreconditionFailed, and what `check_kept` raises."""
        with self._lock:
            live = self._live(ref)
            conditions.check(live)
            now = self._clock.now()
            check_kept(self._shelf(ref.bucket).bucket, live, now)
            self.store.delete_object(live, self._last_generation, self.notifications.of_delete(live, now))
            self._shelf(ref.bucket).drop(ref.name)
            self.files.remove(live.location)

    def copy(
        self,
        source: Ref,
        target: Ref,
        resource: Mapping[str, Any],
        *,
        source_conditions: Conditions = NO_CONDITIONS,
        conditions: Conditions = NO_CONDITIONS,
    ) -> StoredObject:
        """Copy content; the fields come from `resource` if it sets any, else from the source. Raises like `open` and `put`."""
        stored, file = self.open(source, source_conditions, reading=False)
        fields = merged_fields({}, resource)
        if not fields:
            fields = dict(stored.fields)
        elif "contentType" in stored.fields:
            fields.setdefault("contentType", stored.fields["contentType"])
        with file:
            staged = self._stage_all([file])
        return self.put(target, staged, fields, conditions, component_count=stored.component_count)

    def move(self, source: Ref, target_name: str, source_conditions: Conditions, conditions: Conditions = NO_CONDITIONS) -> StoredObject:
        """Rename an object within its bucket. Nobody sees both names or none; only a kill in the middle can leave both.

        Raises like `open` and `put`, and InvalidArgument for a move onto itself.
        """
        if target_name == source.name:
            raise InvalidArgument(f"The source and the destination of a move are the same: {target_name}")
        with self._lock:
            moved, file = self.open(source, source_conditions, reading=False)
            with file:
                check_kept(self._shelf(source.bucket).bucket, moved, self._clock.now())
                staged = self._stage_all([file])
            target = Ref(source.bucket, target_name)
            stored = self.put(target, staged, moved.fields, conditions, component_count=moved.component_count)
            self.delete(source)
            return stored

    def compose(
        self,
        target: Ref,
        sources: Sequence[tuple[str, int | None, Conditions]],
        resource: Mapping[str, Any],
        conditions: Conditions = NO_CONDITIONS,
    ) -> StoredObject:
        """Join up to 32 objects of the same bucket, each given by name, generation and conditions. Raises like `open` and `put`."""
        if not 1 <= len(sources) <= COMPOSE_LIMIT_COUNT:
            raise InvalidArgument(f"The number of source components must be between 1 and {COMPOSE_LIMIT_COUNT}, got {len(sources)}.")
        with ExitStack() as stack:
            opened: list[tuple[StoredObject, BinaryIO]] = []
            with self._lock:
                for name, generation, expected in sources:
                    opened.append(self.open(Ref(target.bucket, name, generation), expected))
                    stack.enter_context(opened[-1][1])
            staged = self._stage_all([file for _, file in opened])
        count = sum(stored.component_count or 1 for stored, _ in opened)
        return self.put(target, staged, resource, conditions, component_count=count)

    def list_objects(self, bucket: str, query: ListQuery) -> tuple[list[StoredObject], Page]:
        """The objects on a page, and the page. Raises NotFound (the bucket), InvalidArgument."""
        with self._lock:
            shelf = self._shelf(bucket)
            page = page_of(shelf.names, query)
            return [shelf.objects[name] for name in page.names], page

    # Inside

    def _stage_all(self, contents: Sequence[BinaryIO]) -> Staged:
        staged = self.files.stage()
        try:
            for content in contents:
                for block in blocks(content):
                    staged.write(block)
        except OSError:
            staged.discard()
            raise
        return staged

    def _check_free_way(self, stored: StoredObject) -> None:
        """Raises Damaged when a person has put something in the way of the object's file."""
        obstacle = self.files.obstacle(stored.location)
        if obstacle is not None:
            text = f"{obstacle} is in the way of the file of the object {stored.bucket}/{stored.name}"
            raise Damaged(f"{text}: somebody put it there by hand; move it away")

    def _shelf(self, bucket: str) -> _Shelf:
        try:
            return self._shelves[bucket]
        except KeyError:
            raise NotFound("The specified bucket does not exist.") from None

    def _live(self, ref: Ref) -> StoredObject:
        stored = self._shelf(ref.bucket).objects.get(ref.name)
        if stored is None or ref.generation not in (None, stored.generation):
            raise NotFound(f"No such object: {ref}")
        return stored

    def _next_generation(self, now_s: float) -> int:
        """Microseconds as in the real service, but never a generation that was given out before."""
        self._last_generation = max(int(now_s * 1_000_000), self._last_generation + 1)
        return self._last_generation


def _bucket_fields(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    return merged(old, {key: value for key, value in change.items() if key not in BUCKET_SERVER_FIELDS})
