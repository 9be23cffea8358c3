"""Resumable uploads: sessions that are kept until their content is complete, and their Content-Range headers.

A session's confirmed bytes are on disk before they are reported, so a client can go on after a restart of the server.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from local_cloud.clock import Clock
from local_cloud.storage.model.conditions import Conditions
from local_cloud.storage.model.errors import Conflict, Gone, InvalidArgument, NotFound, StorageError
from local_cloud.storage.model.files import Staged
from local_cloud.storage.model.records import StoredObject, check_object_name, merged_fields
from local_cloud.storage.model.storage import RESUMABLE_PREFIX, Ref, Storage

SESSION_LIFE_S = 7 * 24 * 3600.0
_FINISHED_LIMIT_COUNT = 1_000
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]+)-([0-9]+|\*)|\*)/([0-9]+|\*)")


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Bytes `start` to `end` (inclusive) of `total`. Without a start it asks for the status; without a total, that is not known yet. A
    start without an end, as Node's client sends it, means: to the end of the body, which, without a total, is the end of the content
    too."""

    start: int | None = None
    end: int | None = None
    total: int | None = None

    @property
    def is_open(self) -> bool:
        return self.start is not None and self.end is None and self.total is None


def content_range(header: str | None) -> ContentRange | None:
    """None without a header: then the body is the rest of the content. Raises InvalidArgument."""
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise InvalidArgument(f"Failed to parse Content-Range header: '{header}'")
    start, end, total = match.groups()
    parsed = ContentRange(*(None if number in (None, "*") else int(number) for number in (start, end, total)))
    if parsed.start is not None and parsed.end is not None:
        beyond_total = parsed.total is not None and parsed.end >= parsed.total
        if parsed.end < parsed.start or beyond_total:
            raise InvalidArgument(f"Invalid Content-Range: '{header}'")
    return parsed


class Upload:
    """One session. Each request that writes takes a turn first; an earlier request can then no longer write."""

    def __init__(self, token: str, ref: Ref, resource: Mapping[str, Any], conditions: Conditions, staged: Staged) -> None:
        self.token = token
        self.ref = ref
        self.resource = resource
        self.conditions = conditions
        self.staged = staged
        self._turn = 0

    @property
    def size(self) -> int:
        return self.staged.size

    def take_turn(self) -> int:
        self._turn += 1
        return self._turn

    def write(self, turn: int, data: bytes) -> None:
        """Raises Conflict if another request took over the session."""
        if turn != self._turn:
            raise Conflict("Another request writes to this upload session.")
        self.staged.write(data)


class Uploads:
    """All sessions of a storage. Called from one thread."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._store = storage.store
        self._clock = clock
        self._active: dict[str, Upload] = {}
        self._finished: OrderedDict[str, StoredObject] = OrderedDict()
        alive = self._store.keep_sessions_since(clock.now() - SESSION_LIFE_S)
        for token in storage.files.staged_tokens() - alive:
            if token.startswith(RESUMABLE_PREFIX):
                storage.files.discard(token)

    def start(self, ref: Ref, resource: Mapping[str, Any], conditions: Conditions) -> Upload:
        """Raises InvalidArgument; NotFound (the bucket); PreconditionFailed if the conditions already fail now."""
        check_object_name(ref.name)
        merged_fields({}, resource)
        conditions.check(self._storage.peek(ref))
        staged = self._storage.files.stage(RESUMABLE_PREFIX)
        session = {"bucket": ref.bucket, "name": ref.name, "resource": resource, "conditions": asdict(conditions)}
        self._store.save_session(staged.token, self._clock.now(), session)
        upload = self._active[staged.token] = Upload(staged.token, ref, resource, conditions, staged)
        return upload

    def find(self, token: str) -> Upload | StoredObject:
        """The session, or the object that it has become. Raises NotFound, Gone."""
        found = self._finished.get(token) or self._active.get(token) or self._load(token)
        if isinstance(found, Upload):
            self._active[token] = found
        return found

    def _load(self, token: str) -> Upload | StoredObject:
        session = self._store.session(token)
        if session is None:
            raise NotFound(f"No such upload session: {token}. Start the upload again.")
        ref = Ref(session["bucket"], session["name"])
        staged = self._storage.files.restage(token)
        if staged is not None:
            return Upload(token, ref, session["resource"], Conditions(**session["conditions"]), staged)
        stored = self._storage.peek(ref)
        if stored is None or stored.token != token:
            raise Gone(f"The upload session {token} is over, and its object was replaced since.")
        return stored

    def finish(self, upload: Upload, hashes: Mapping[str, str]) -> StoredObject:
        """Make the session's content an object; any error ends the session. Raises like `Storage.put`."""
        upload.take_turn()
        try:
            upload.staged.check(hashes, upload.resource)
        except StorageError:
            self.abandon(upload.token)
            raise
        del self._active[upload.token]
        try:
            stored = self._storage.put(upload.ref, upload.staged, upload.resource, upload.conditions)
        except (StorageError, OSError):
            self._store.delete_session(upload.token)
            raise
        self._finished[upload.token] = stored
        if len(self._finished) > _FINISHED_LIMIT_COUNT:
            forgotten, _ = self._finished.popitem(last=False)
            self._store.delete_session(forgotten)
        return stored

    def abandon(self, token: str) -> None:
        """End a session without an object. Does nothing without one."""
        upload = self._active.pop(token, None)
        if upload is not None:
            upload.take_turn()
            upload.staged.discard()
            self._store.delete_session(token)
