"""One bucket of Cloud Storage, through Google's client. Every error of Google leaves as one of `batch.model.errors`, never as itself.

Facts behind it: the client repeats 408, 429, 5xx and lost connections; an upload whose first answer was lost may therefore
meet its own object and get 412 (callers that name a generation compare the metadata). PATCH merges metadata. An object's
404 and its bucket's differ in the text only, and a worker may not be allowed to read the bucket itself, so a listing asks.
Content travels as it is stored, for its checksum is that of what is stored; the client's own unzipping takes the part of a stream that is
cut for the whole.
Google's package is imported when a store is made: importing this module stays cheap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from batch import arguments
from batch.copies import copies
from batch.files import new_file, whole_file
from batch.model.errors import (
    DependencyForbidden,
    DependencyMissing,
    DependencyUnavailable,
    FanoutError,
    ObjectMissing,
    ObjectTooLarge,
    PreconditionFailed,
    ServiceRefused,
)
from batch.services.arriving import Arriving, damaged
from batch.services.ports import ObjectInfo
from batch.services.refusals import Where, explained, is_passing, refusal_of, translated, unreadable

REQUEST_TIMEOUT_S = 20.0
"""For connecting, and for each wait on the socket: one request of several megabytes may take longer in all."""
TOTAL_TIMEOUT_S = 60.0
LIST_PAGE = 1000
PASSING_TRIES = 3
"""How often a request is sent again that met a refusal which may be gone at the next try."""
UPLOAD_PIECE_BYTES = 8 * 1024 * 1024
"""How much of a file is in memory while it is uploaded; a multiple of 256 KiB, as resumable uploads need it."""
READ_ROUNDS = 10
"""How often a read of content and info may find that the object was replaced in between."""

_UNREADABLE = (AttributeError, LookupError, OverflowError, TypeError, ValueError)
"""What the client, and our reading of its answer, raise on bodies that lack what Cloud Storage always says; arguments were checked"""
_LIST_FIELDS = "items(name,generation,size,metadata,contentType,updated,crc32c),nextPageToken"


class GoogleObjectStore:
    """Implements `batch.services.ports.ObjectStore`; may be used from any thread.

    `timeout_s` bounds one call with all its retries, `request_timeout_s` each wait on the socket. STORAGE_EMULATOR_HOST
    (with its scheme) sends everything there, without credentials. `billing_project` pays for requests to a bucket with Requester Pays.
    Raises DependencyForbidden when there are no credentials.
    """

    def __init__(
        self,
        bucket_name: str,
        *,
        project: str,
        pool_size: int = 64,
        timeout_s: float = TOTAL_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        billing_project: str = "",
    ) -> None:
        import requests
        import urllib3
        from google.api_core import exceptions as api_errors
        from google.auth import exceptions as auth_errors
        from google.cloud.storage import exceptions as storage_errors
        from google.cloud.storage.retry import DEFAULT_RETRY

        self.bucket_name = bucket_name
        self._project = project
        self._no_json: type[Exception] = requests.exceptions.InvalidJSONError
        self._corrupted: type[Exception] = storage_errors.DataCorruption
        self._failures: tuple[type[Exception], ...] = (
            api_errors.GoogleAPIError,
            auth_errors.GoogleAuthError,
            storage_errors.InvalidResponse,
            self._corrupted,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        )
        self._denials: tuple[type[Exception], ...] = (auth_errors.DefaultCredentialsError, auth_errors.RefreshError)
        self._billing_project = billing_project
        self._pool_size = pool_size
        self._of_parent: list[Any] = []
        _ = self._bucket  # now, so that credentials which are missing are found now
        copies.at_birth(self._leave_connections)
        self._options: dict[str, Any] = {
            "timeout": request_timeout_s,
            "retry": DEFAULT_RETRY.with_delay(initial=0.2, maximum=8.0, multiplier=2.0).with_timeout(timeout_s),
        }
        self._is_retried: Callable[[Exception], bool] = DEFAULT_RETRY._predicate

    @cached_property
    def _client(self) -> Any:
        """Made again in a copy of the process."""
        import requests
        from google.cloud import storage

        try:
            client = storage.Client(project=self._project)
        except self._failures as error:
            raise self._ours(error, Where("reach", self.bucket_name, self._project), None) from error
        _prepare(client, requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=self._pool_size))
        return client

    @cached_property
    def _bucket(self) -> Any:
        return self._client.bucket(self.bucket_name, user_project=self._billing_project or None)

    def _leave_connections(self) -> None:
        """In a copy of the process: two that write into one connection get each other's answers. The old client is kept, or closing it
        might wait for a lock whose holder was not copied."""
        self._of_parent += [self.__dict__.pop(name, None) for name in ("_bucket", "_client")]

    def write(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        """As `ObjectStore.write`. The client's own retry may find what its first request wrote."""
        blob = self._blob(name)
        data, content_type = arguments.content(data), arguments.content_type(content_type)
        if metadata:
            blob.metadata = dict(metadata)
        with self._errors("write", name, if_generation):
            options = self._patient(Where("write", self.bucket_name, self._project, name), if_generation)
            blob.upload_from_string(data, content_type=content_type, if_generation_match=if_generation, **options)
            return _info(blob)

    def read(self, name: str) -> bytes:
        """As `ObjectStore.read`."""
        return self.read_stored(name)[0]

    def read_stored(self, name: str) -> tuple[bytes, bytes | None]:
        """As `ObjectStore.read_stored`: in one request."""
        return self._content(self._blob(name), name)

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        """The content's answer lacks the metadata, so it takes two requests; the content's names the generation of the info."""
        for _ in range(READ_ROUNDS):
            info = self.info(name)
            if info is None:
                raise ObjectMissing(name)
            try:
                return self._content(self._blob(name, info.generation), name)[0], info
            except ObjectMissing:
                continue  # replaced or deleted since: the info tells which
        raise self._restless(name)

    def _restless(self, name: str) -> DependencyUnavailable:
        where = Where("read", self.bucket_name, self._project, name)
        return DependencyUnavailable(f"{where}: it was replaced {READ_ROUNDS} times while it was read; find who writes it so often")

    def download(self, name: str, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> ObjectInfo:
        """As `ObjectStore.download`. What a connection that broke did not bring is asked for from there on."""
        path, max_bytes = arguments.file_path(path), arguments.max_bytes(max_bytes)
        for _ in range(READ_ROUNDS):
            blob = self._blob(name)
            with self._errors("read", name):
                blob.reload(**self._options)
                info, is_zipped = _info(blob), _is_zipped(blob)
            if max_bytes is not None and info.size > max_bytes and not is_zipped:
                raise ObjectTooLarge(name, max_bytes)
            try:
                with new_file(path) as file:
                    self._stream(Arriving(info, file, max_bytes, is_zipped=is_zipped), info)
                return info
            except ObjectMissing:
                continue  # replaced or deleted since: the info tells which
        raise self._restless(name)

    def _stream(self, arriving: Arriving, info: ObjectInfo) -> None:
        where = Where("read", self.bucket_name, self._project, info.name)
        while (begin := arriving.stored_bytes) < info.size:
            failure: FanoutError = DependencyUnavailable(f"{where}: nothing came; try again later")
            blob = self._blob(info.name, info.generation)  # a new one: the answer's head overwrites what it knows
            try:
                with self._errors("read", info.name):
                    blob.download_to_file(arriving, start=begin or None, raw_download=True, checksum=None, **self._options)
            except (DependencyUnavailable, ServiceRefused) as error:
                failure = error
            if arriving.stored_bytes == begin or arriving.is_broken:
                raise failure
        if not arriving.is_whole():
            raise DependencyUnavailable(f"{where}: what arrived is not what is stored, by its size or checksum; try again later")
        arriving.finish()

    def upload(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        """As `ObjectStore.upload`: in one request up to 8 MiB, beyond in a resumable session whose every request has its own retries."""
        blob = self._bucket.blob(arguments.object_name(name), chunk_size=UPLOAD_PIECE_BYTES)
        path, content_type = arguments.file_path(path), arguments.content_type(content_type)
        if metadata:
            blob.metadata = dict(metadata)
        with whole_file(path) as file, self._errors("write", name, if_generation):
            options = self._patient(Where("write", self.bucket_name, self._project, name), if_generation)
            blob.upload_from_file(file, size=file.size, content_type=content_type, if_generation_match=if_generation, **options)
            return _info(blob)

    def info(self, name: str) -> ObjectInfo | None:
        """None when there is no such object. Raises DependencyError."""
        blob = self._blob(name)
        try:
            with self._errors("look up", name):
                blob.reload(**self._options)
                return _info(blob)
        except ObjectMissing:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Lazy: a page of 1,000 objects is asked for when its first one is wanted."""
        prefix = arguments.name_prefix(prefix)
        with self._errors("list"):
            pages = self._client.list_blobs(self._bucket, prefix=prefix, page_size=LIST_PAGE, fields=_LIST_FIELDS, **self._options)
            for blob in pages:
                yield _info(blob)

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        """Merge `metadata` into the object's. Raises ObjectMissing, DependencyError."""
        blob = self._blob(name)
        blob.metadata = dict(metadata)
        with self._errors("patch the metadata of", name):
            blob.patch(**self._patient(Where("patch", self.bucket_name, self._project, name), None))
            return _info(blob)

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        """False when there was no such object. Raises PreconditionFailed, DependencyError."""
        name = arguments.object_name(name)
        try:
            with self._errors("delete", name, if_generation):
                self._bucket.delete_blob(name, if_generation_match=if_generation, **self._options)
        except ObjectMissing:
            return False
        return True

    def close(self) -> None:
        """Close the connections. The store cannot be used afterwards."""
        self._client.close()

    def _blob(self, name: str, generation: int | None = None) -> Any:
        """Raises TypeError, ValueError."""
        return self._bucket.blob(arguments.object_name(name), generation=generation)

    def _content(self, blob: Any, name: str) -> tuple[bytes, bytes | None]:
        """Another encoding than gzip is the reader's affair, as it is Cloud Storage's."""
        with self._errors("read", name):
            data = bytes(blob.download_as_bytes(raw_download=True, single_shot_download=True, **self._options))
            is_zipped = _is_zipped(blob)
        return (_unzipped(name, data), data) if is_zipped else (data, None)

    def _patient(self, where: Where, if_generation: int | None) -> dict[str, Any]:
        """The options of one request that is sent again a few times when it meets a passing refusal, such as a precondition nobody set."""
        met = 0

        def again(error: Exception) -> bool:
            nonlocal met
            if self._is_retried(error):
                return True
            met += is_passing(where, refusal_of(error), is_conditional=if_generation is not None)
            return 0 < met <= PASSING_TRIES

        return self._options | {"retry": self._options["retry"].with_predicate(again)}

    @contextmanager
    def _errors(self, action: str, name: str = "", if_generation: int | None = None) -> Iterator[None]:
        where = Where(action, self.bucket_name, self._project, name)
        try:
            yield
        except self._failures as error:
            raise self._ours(error, where, if_generation) from error
        except _UNREADABLE as error:
            raise unreadable(where, error) from error

    def _ours(self, error: Exception, where: Where, if_generation: int | None) -> FanoutError:
        if isinstance(error, self._denials) and not getattr(error, "retryable", False):
            return DependencyForbidden(
                f"{where}: there are no usable Google credentials; on a laptop run `gcloud auth application-default login`: {error}"
            )
        if isinstance(error, self._no_json):
            return unreadable(where, error)
        if isinstance(error, self._corrupted):
            return DependencyUnavailable(f"{where}: what arrived is not what is stored, by its checksum; try again later: {error!r:.300}")
        refusal = refusal_of(error)
        known = explained(where, refusal)
        if known is not None:
            return known
        if refusal.status == 412 and if_generation is not None:
            return PreconditionFailed(where.name, if_generation)
        if refusal.status == 404 and where.name and self._is_about_object(refusal.detail):
            # A write has no object to miss: the session of a large upload is gone.
            return ObjectMissing(where.name) if where.action != "write" else translated(where, refusal._replace(status=410))
        return translated(where, refusal)

    def _is_about_object(self, detail: str) -> bool:
        """Whether a 404 means the object. When the text does not say, a listing does; raises what the listing raises."""
        if "No such object" in detail:
            return True
        if "bucket does not exist" in detail:
            return False
        try:
            with self._errors("list"):  # at most one name: all that a worker's role allows
                next(iter(self._client.list_blobs(self._bucket, max_results=1, fields="items(name)", **self._options)), None)
        except DependencyMissing:
            return False
        return True


def _prepare(client: Any, adapter: Any) -> None:
    # Unasked, and even without tracing, the client would read the bucket's location from a thread of its own, which a worker may not.
    client._bucket_metadata_cache = None
    # The pool holds 10 connections by default; more threads than that would open and drop one for each request.
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, adapter)
    client._http.hooks["response"].append(_read_answer)


def _read_answer(response: Any, **_: object) -> None:
    """The client streams downloads and drops a refused one unread, socket and all; read, its connection serves the next request. It takes
    a part that it did not ask for as the whole."""
    if response.status_code >= 400:
        _ = response.content
    elif response.status_code == 206 and "Range" not in response.request.headers:
        response.close()
        raise ValueError("206, a part of an object, to a request for the whole")


def _unzipped(name: str, data: bytes) -> bytes:
    """The whole of it: a stream that ends early, or whose checksum or length is wrong, is never read short."""
    import gzip
    import zlib

    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(name, error) from error


def _is_zipped(blob: Any) -> bool:
    return str(blob.content_encoding or "").lower() == "gzip"


def _info(blob: Any) -> ObjectInfo:
    updated = blob.updated
    return ObjectInfo(
        name=str(blob.name),
        generation=int(blob.generation),
        size=int(blob.size or 0),
        metadata={str(key): str(value) for key, value in (blob.metadata or {}).items()},
        content_type=str(blob.content_type or ""),
        updated_s=float(updated.timestamp()) if updated is not None else 0.0,
        crc32c=str(blob.crc32c or ""),
    )
