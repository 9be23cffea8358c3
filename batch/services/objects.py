"""One bucket of Cloud Storage. Every error of Google leaves as one of `batch.model.errors`, never as itself.

Facts behind it: a request is repeated after 408, 429, 5xx and lost connections; an upload whose first answer was lost may therefore
meet its own object and get 412 (callers that name a generation compare the metadata). PATCH merges metadata. An object's
404 and its bucket's differ in the text only, and a worker may not be allowed to read the bucket itself, so a listing asks.
Content travels as it is stored, for its checksum is that of what is stored; the client's own unzipping takes the part of a stream that is
cut for the whole.
Google's client, which takes five times the processor time for a request, is made and imported when a large object is written.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from batch import arguments
from batch.copies import copies
from batch.files import new_file, whole_file
from batch.model.clock import Clock
from batch.model.errors import (
    DependencyMissing,
    DependencyUnavailable,
    FanoutError,
    ObjectMissing,
    ObjectTooLarge,
    PreconditionFailed,
    ServiceRefused,
)
from batch.services.arriving import Arriving
from batch.services.calls import http_client_info
from batch.services.json_api import MISSHAPEN, Answer, Bucket, Request, damage_of, info_of, is_bounded, page_of, refusal_in, unzipped
from batch.services.ports import ObjectInfo
from batch.services.refusals import Refusal, Where, corrupted, explained, is_passing, refusal_of, tells_secrets, translated, unreadable
from batch.services.transport import FIRST_PAUSE_S, LONGEST_PAUSE_S, PASSING_TRIES, Transport, failure_of

REQUEST_TIMEOUT_S = 20.0
"""For connecting, and for each wait on the socket: one request of several megabytes may take longer in all."""
TOTAL_TIMEOUT_S = 60.0
READ_ROUNDS = 10
"""How often a read of content and info may find that the object was replaced in between."""
UPLOAD_PIECE_BYTES = 8 * 1024 * 1024
"""How much of a file is in memory while it is uploaded; a multiple of 256 KiB, as resumable uploads need it."""
MAX_REQUEST_BYTES = 8 << 20
"""Content above this travels in an upload of its own, which goes on where it was cut; Google's client draws the line there, too."""


class GoogleObjectStore:
    """Implements `batch.services.ports.ObjectStore`; may be used from any thread.

    `timeout_s` bounds one call with all its retries, `request_timeout_s` each wait on the socket, `reached_within_s` the retries of a call
    that finds no connection before any has been answered. STORAGE_EMULATOR_HOST
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
        reached_within_s: float | None = None,
        billing_project: str = "",
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.bucket_name = bucket_name
        self._project = project
        self._billing_project = billing_project
        self._requests = Bucket(bucket_name, billing_project)
        self._timeout_s, self._request_timeout_s, self._reached_within_s = timeout_s, request_timeout_s, reached_within_s
        self._pool_size, self._clock, self._rng = pool_size, clock, rng or random.Random()
        self._of_parent: list[Any] = []
        self._made_client: Any = None
        self._made_transport: Transport | None = None
        _ = self._transport  # now, so that credentials which are missing are found now
        copies.at_birth(self._leave_connections)

    @property
    def _transport(self) -> Transport:
        """Made again in a copy of the process."""
        if self._made_transport is None:
            self._made_transport = Transport(
                self._where("reach"),
                pool_size=self._pool_size,
                timeout_s=self._timeout_s,
                request_timeout_s=self._request_timeout_s,
                reached_within_s=self._reached_within_s,
                clock=self._clock,
                rng=self._rng,
            )
        return self._made_transport

    @property
    def _client(self) -> Any:
        """Google's, on the same connections; made when it is first used, and again in a copy of the process."""
        if self._made_client is None:
            from google.cloud import storage

            transport = self._transport
            client: Any = storage.Client(
                project=self._project, credentials=transport.credentials, _http=transport.session, client_info=http_client_info()
            )
            # Unasked, and even without tracing, it would read the bucket's location from a thread of its own, which a worker may not.
            client._bucket_metadata_cache = None
            transport.session.hooks["response"].append(_read_answer)
            self._made_client = client
        return self._made_client

    @property
    def _bucket(self) -> Any:
        return self._client.bucket(self.bucket_name, user_project=self._billing_project or None)

    def _leave_connections(self) -> None:
        """In a copy of the process: two that write into one connection get each other's answers. The old ones are kept, or closing them
        might wait for a lock whose holder was not copied."""
        self._of_parent += [self._made_transport, self._made_client]
        self._made_transport = self._made_client = None

    def write(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        """As `ObjectStore.write`. A retry may find what its first request wrote."""
        name = arguments.object_name(name)
        data, content_type = arguments.content(data), arguments.content_type(content_type)
        if len(data) > MAX_REQUEST_BYTES:
            return self._upload(name, io.BytesIO(data), len(data), content_type, metadata, if_generation)
        boundary = f"{self._rng.getrandbits(128):032x}"
        request = self._requests.write(name, data, content_type, metadata or {}, if_generation, boundary)
        return self._info(request, self._where("write", name), if_generation)

    def read(self, name: str) -> bytes:
        """As `ObjectStore.read`."""
        return self.read_stored(name)[0]

    def read_stored(self, name: str, max_bytes: int | None = None) -> tuple[bytes, bytes | None]:
        """As `ObjectStore.read_stored`: in one request."""
        return self._content(arguments.object_name(name), max_bytes=arguments.max_bytes(max_bytes))

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        """The content's answer lacks the metadata, so it takes two requests; the content's names the generation of the info."""
        for _ in range(READ_ROUNDS):
            info = self.info(name)
            if info is None:
                raise ObjectMissing(name)
            try:
                return self._content(name, info.generation)[0], info
            except ObjectMissing:
                continue  # replaced or deleted since: the info tells which
        raise self._restless(name)

    def _restless(self, name: str) -> DependencyUnavailable:
        where = self._where("read", name)
        return DependencyUnavailable(f"{where}: it was replaced {READ_ROUNDS} times while it was read; find who writes it so often")

    def download(self, name: str, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> ObjectInfo:
        """As `ObjectStore.download`. What a connection that broke did not bring is asked for from there on."""
        name = arguments.object_name(name)
        path, max_bytes = arguments.file_path(path), arguments.max_bytes(max_bytes)
        for _ in range(READ_ROUNDS):
            resource, info = self._resource(self._requests.look_up(name), self._where("read", name))
            is_zipped = str(resource.get("contentEncoding") or "").lower() == "gzip"
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
        where = self._where("read", info.name)
        while (begin := arriving.stored_bytes) < info.size:
            failure: FanoutError = DependencyUnavailable(f"{where}: nothing came; try again later")
            blob = self._bucket.blob(info.name, generation=info.generation)  # a new one: the answer's head overwrites what it knows
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
        name = arguments.object_name(name)
        path, content_type = arguments.file_path(path), arguments.content_type(content_type)
        with whole_file(path) as file:
            return self._upload(name, file, file.size, content_type, metadata, if_generation)

    def info(self, name: str) -> ObjectInfo | None:
        """None when there is no such object. Raises DependencyError."""
        name = arguments.object_name(name)
        try:
            return self._info(self._requests.look_up(name), self._where("look up", name))
        except ObjectMissing:
            return None

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        """Lazy: a page of 1,000 objects is asked for when its first one is wanted."""
        prefix, start = arguments.name_prefix(prefix), arguments.name_prefix(start)
        where, token = self._where("list"), ""
        while True:
            answer = self._answer(self._requests.list(prefix, token, start=start), where)
            try:
                infos, token = page_of(answer)
            except MISSHAPEN as error:
                raise unreadable(where, error) from error
            yield from infos
            if not token:
                return

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        """Merge `metadata` into the object's. Raises ObjectMissing, DependencyError."""
        name = arguments.object_name(name)
        return self._info(self._requests.patch(name, metadata), self._where("patch the metadata of", name))

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        """False when there was no such object. Raises PreconditionFailed, DependencyError."""
        name = arguments.object_name(name)
        where = self._where("delete", name)
        try:
            answer = self._answer(self._requests.delete(name, if_generation), where, if_generation)
        except ObjectMissing:
            return False
        try:
            _ = json.loads(answer.body) if answer.body else None
        except MISSHAPEN as error:
            raise unreadable(where, error) from error
        return True

    def close(self) -> None:
        """Close the connections. The store cannot be used afterwards."""
        self._transport.close()

    def _where(self, action: str, name: str = "") -> Where:
        return Where(action, self.bucket_name, self._project, name)

    def _answer(self, request: Request, where: Where, if_generation: int | None = None) -> Answer:
        """The answer of a request that succeeded; the errors of all others."""
        answer = self._transport.send(request, where)
        if answer.status == 200 or (answer.status == 204 and request.method == "DELETE"):
            return answer
        if answer.status == 206:
            raise unreadable(where, ValueError("206, a part of an object, to a request for the whole"))
        raise self._refused(refusal_in(answer), where, if_generation)

    def _info(self, request: Request, where: Where, if_generation: int | None = None) -> ObjectInfo:
        return self._resource(request, where, if_generation)[1]

    def _resource(self, request: Request, where: Where, if_generation: int | None = None) -> tuple[dict[str, Any], ObjectInfo]:
        answer = self._answer(request, where, if_generation)
        try:
            resource = json.loads(answer.body)
            return resource, info_of(resource, where.name)
        except MISSHAPEN as error:
            raise unreadable(where, error) from error

    def _content(self, name: str, generation: int | None = None, max_bytes: int | None = None) -> tuple[bytes, bytes | None]:
        """As `read_stored`. Another encoding than gzip is the reader's affair, as it is Cloud Storage's."""
        where = self._where("read", name)
        answer = self._answer(self._requests.read(name, generation, max_bytes), where)
        if answer.is_cut:
            raise ObjectTooLarge(name, max_bytes or 0)
        if not is_bounded(answer):
            raise unreadable(where, ValueError("content with neither a length nor a checksum"))
        damage = damage_of(answer)
        if damage:
            raise corrupted(where, damage)
        is_zipped = answer.headers.get("content-encoding", "").lower() == "gzip"
        return (unzipped(name, answer.body, max_bytes), answer.body) if is_zipped else (answer.body, None)

    def _upload(
        self, name: str, file: Any, size: int, content_type: str, metadata: Mapping[str, str] | None, if_generation: int | None
    ) -> ObjectInfo:
        with self._errors("write", name, if_generation):
            blob = self._bucket.blob(name, chunk_size=UPLOAD_PIECE_BYTES)
            if metadata:
                blob.metadata = dict(metadata)
            options = self._patient(self._where("write", name), if_generation)
            blob.upload_from_file(file, size=size, content_type=content_type, if_generation_match=if_generation, **options)
            return info_of(blob._properties, name)

    @property
    def _options(self) -> dict[str, Any]:
        """Of a call of Google's client: it repeats a request as the transport does."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        retry = DEFAULT_RETRY.with_delay(initial=FIRST_PAUSE_S, maximum=LONGEST_PAUSE_S, multiplier=2.0).with_timeout(self._timeout_s)
        return {"timeout": self._request_timeout_s, "retry": retry}

    def _patient(self, where: Where, if_generation: int | None) -> dict[str, Any]:
        """The same for a request that is also sent again a few times when it meets a passing refusal, as a session that is gone."""
        options = self._options
        is_retried: Callable[[Exception], bool] = options["retry"]._predicate
        met = 0

        def again(error: Exception) -> bool:
            nonlocal met
            if is_retried(error):
                return True
            met += is_passing(where, refusal_of(error), is_conditional=if_generation is not None)
            return 0 < met <= PASSING_TRIES

        return options | {"retry": options["retry"].with_predicate(again)}

    @contextmanager
    def _errors(self, action: str, name: str = "", if_generation: int | None = None) -> Iterator[None]:
        """Around calls of Google's client."""
        where = self._where(action, name)
        try:
            yield
        except FanoutError:
            raise
        except Exception as error:  # noqa: BLE001 - what is not theirs is raised as it is
            raise self._ours(error, where, if_generation) from (None if tells_secrets(error) else error)

    def _ours(self, error: Exception, where: Where, if_generation: int | None) -> FanoutError:
        """Our error for one of the client. Raises those that are of neither."""
        import requests
        import urllib3
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

        if isinstance(error, GoogleAuthError):
            return failure_of(error, where)
        if isinstance(error, DataCorruption):
            return corrupted(where, f"{error!r:.300}")
        if isinstance(error, GoogleAPIError | InvalidResponse | urllib3.exceptions.HTTPError | OSError):
            if not isinstance(error, requests.exceptions.InvalidJSONError):
                return self._refused(refusal_of(error), where, if_generation)
        elif not isinstance(error, MISSHAPEN):
            raise error
        return unreadable(where, error)

    def _refused(self, refusal: Refusal, where: Where, if_generation: int | None) -> FanoutError:
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
            self._answer(self._requests.list("", most=1), self._where("list"))  # at most one name: all that a worker's role allows
        except DependencyMissing:
            return False
        return True


def _read_answer(response: Any, **_: object) -> None:
    """The client streams downloads and drops a refused one unread, socket and all; read, its connection serves the next request. It takes
    a part that it did not ask for as the whole."""
    if response.status_code >= 400:
        _ = response.content
    elif response.status_code == 206 and "Range" not in response.request.headers:
        response.close()
        raise ValueError("206, a part of an object, to a request for the whole")
