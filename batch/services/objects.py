"""One bucket of Cloud Storage, through Google's client. Every error of Google leaves as one of `batch.model.errors`, never as itself.

Facts behind it: the client repeats 408, 429, 5xx and lost connections; an upload whose first answer was lost may therefore
meet its own object and get 412 (callers that name a generation compare the metadata). PATCH merges metadata. An object's
404 and its bucket's differ in the text only, and a worker may not be allowed to read the bucket itself, so a listing asks.
Google's package is imported when a store is made: importing this module stays cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from batch.copies import copies
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError, ObjectMissing, PreconditionFailed
from batch.services.ports import ObjectInfo

REQUEST_TIMEOUT_S = 20.0
"""For connecting, and for each wait on the socket: one request of several megabytes may take longer in all."""
TOTAL_TIMEOUT_S = 60.0
LIST_PAGE = 1000
READ_ROUNDS = 10
"""How often a read of content and info may find that the object was replaced in between."""

_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
"""What the client, and our reading of its answer, raise on bodies that lack what Cloud Storage always says."""
_UNAVAILABLE = frozenset({408, 429, 500, 502, 503, 504})
_LIST_FIELDS = "items(name,generation,size,metadata,contentType,updated,crc32c),nextPageToken"


@dataclass(frozen=True, slots=True)
class Where:
    """What a request was about, for the messages."""

    action: str
    bucket: str
    project: str
    name: str = ""

    def __str__(self) -> str:
        target = f"object {self.name} in bucket {self.bucket}" if self.name else f"bucket {self.bucket}"
        return f"cannot {self.action} {target} (project {self.project})"


def translated(where: Where, status: int, detail: str) -> FanoutError:
    """Our error for an HTTP status of Cloud Storage other than an object's 404 and a 412; 0 stands for no answer at all."""
    detail = " ".join(detail.split())[:500]
    if status == 404:
        return DependencyMissing(
            f"{where}: bucket {where.bucket} does not exist in project {where.project}: create it with "
            f"`gcloud storage buckets create gs://{where.bucket} --project={where.project}`, or fix BUCKET_NAME"
        )
    if status in (401, 403):
        return DependencyForbidden(
            f"{where}: refused with {status}: grant this identity roles/storage.objectUser on gs://{where.bucket}, "
            f"or run as another identity: {detail}"
        )
    if status == 0 or status in _UNAVAILABLE:
        answer = f"answered {status}" if status else "did not answer"
        return DependencyUnavailable(f"{where}: Cloud Storage {answer} until the time for retries was over; try again later: {detail}")
    return FanoutError(f"{where}: Cloud Storage refused the request with {status}; repeating it cannot help: {detail}")


class GoogleObjectStore:
    """Implements `batch.services.ports.ObjectStore`; may be used from any thread.

    `timeout_s` bounds one call with all its retries, `request_timeout_s` each wait on the socket. STORAGE_EMULATOR_HOST
    (with its scheme) sends everything there, without credentials. Raises DependencyForbidden when there are no credentials.
    """

    def __init__(
        self,
        bucket_name: str,
        *,
        project: str,
        pool_size: int = 64,
        timeout_s: float = TOTAL_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        import requests
        from google.api_core import exceptions as api_errors
        from google.auth import exceptions as auth_errors
        from google.cloud.storage import exceptions as storage_errors
        from google.cloud.storage.retry import DEFAULT_RETRY

        self.bucket_name = bucket_name
        self._project = project
        self._failures: tuple[type[Exception], ...] = (
            api_errors.GoogleAPIError,
            auth_errors.GoogleAuthError,
            storage_errors.InvalidResponse,
            storage_errors.DataCorruption,
            requests.RequestException,
            OSError,
        )
        self._denials: tuple[type[Exception], ...] = (auth_errors.DefaultCredentialsError, auth_errors.RefreshError)
        self._pool_size = pool_size
        self._of_parent: list[Any] = []
        _ = self._bucket  # now, so that credentials which are missing are found now
        copies.at_birth(self._leave_connections)
        self._options: dict[str, Any] = {
            "timeout": request_timeout_s,
            "retry": DEFAULT_RETRY.with_delay(initial=0.2, maximum=8.0, multiplier=2.0).with_timeout(timeout_s),
        }

    @cached_property
    def _client(self) -> Any:
        """Made again in a copy of the process."""
        import requests
        from google.cloud import storage

        with self._errors("reach"):
            client = storage.Client(project=self._project)
        _prepare(client, requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=self._pool_size))
        return client

    @cached_property
    def _bucket(self) -> Any:
        return self._client.bucket(self.bucket_name)

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
        blob = self._bucket.blob(name)
        if metadata:
            blob.metadata = dict(metadata)
        with self._errors("write", name, if_generation):
            blob.upload_from_string(data, content_type=content_type, if_generation_match=if_generation, **self._options)
            return _info(blob)

    def read(self, name: str) -> bytes:
        """The content. Raises ObjectMissing, DependencyError."""
        with self._errors("read", name):
            return bytes(self._bucket.blob(name).download_as_bytes(single_shot_download=True, **self._options))

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        """The content's answer lacks the metadata, so it takes two requests; the content's names the generation of the info."""
        for _ in range(READ_ROUNDS):
            info = self.info(name)
            if info is None:
                raise ObjectMissing(name)
            blob = self._bucket.blob(name, generation=info.generation)
            try:
                with self._errors("read", name):
                    return bytes(blob.download_as_bytes(single_shot_download=True, **self._options)), info
            except ObjectMissing:
                continue  # replaced or deleted since: the info tells which
        where = Where("read", self.bucket_name, self._project, name)
        raise DependencyUnavailable(f"{where}: it was replaced {READ_ROUNDS} times while it was read; find who writes it so often")

    def info(self, name: str) -> ObjectInfo | None:
        """None when there is no such object. Raises DependencyError."""
        blob = self._bucket.blob(name)
        try:
            with self._errors("look up", name):
                blob.reload(**self._options)
                return _info(blob)
        except ObjectMissing:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Lazy: a page of 1,000 objects is asked for when its first one is wanted."""
        with self._errors("list"):
            pages = self._client.list_blobs(self._bucket, prefix=prefix, page_size=LIST_PAGE, fields=_LIST_FIELDS, **self._options)
            for blob in pages:
                yield _info(blob)

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        """Merge `metadata` into the object's. Raises ObjectMissing, DependencyError."""
        blob = self._bucket.blob(name)
        blob.metadata = dict(metadata)
        with self._errors("patch the metadata of", name):
            blob.patch(**self._options)
            return _info(blob)

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        """False when there was no such object. Raises PreconditionFailed, DependencyError."""
        try:
            with self._errors("delete", name, if_generation):
                self._bucket.delete_blob(name, if_generation_match=if_generation, **self._options)
        except ObjectMissing:
            return False
        return True

    def close(self) -> None:
        """Close the connections. The store cannot be used afterwards."""
        self._client.close()

    @contextmanager
    def _errors(self, action: str, name: str = "", if_generation: int | None = None) -> Iterator[None]:
        where = Where(action, self.bucket_name, self._project, name)
        try:
            yield
        except self._failures as error:
            raise self._ours(error, where, if_generation) from error
        except _UNREADABLE as error:
            raise DependencyUnavailable(
                f"{where}: the answer does not come from Cloud Storage; find the proxy in between: {error!r:.300}"
            ) from error

    def _ours(self, error: Exception, where: Where, if_generation: int | None) -> FanoutError:
        if isinstance(error, self._denials) and not getattr(error, "retryable", False):
            return DependencyForbidden(
                f"{where}: there are no usable Google credentials; on a laptop run `gcloud auth application-default login`: {error}"
            )
        status, detail = _status(error)
        if status == 412 and if_generation is not None:
            return PreconditionFailed(where.name, if_generation)
        if status == 404 and where.name and self._is_about_object(detail):
            return ObjectMissing(where.name)
        return translated(where, status, detail)

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
    client._http.hooks["response"].append(_read_refusal)


def _read_refusal(response: Any, **_: object) -> None:
    """The client streams downloads and drops a refused one unread, socket and all; read, its connection serves the next request."""
    if response.status_code >= 400:
        _ = response.content


def _status(error: Exception) -> tuple[int, str]:
    """HTTP status, 0 when there was none, and what the service said. A retry that gave up counts as its last error."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return _status(cause)
    response = getattr(error, "response", None)
    status = getattr(error, "code", None) or getattr(response, "status_code", None)
    if not isinstance(status, int) or status < 400:  # below: a success whose content failed its checksum
        status = 0
    return int(status), f"{type(error).__name__}: {error}"


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
