"""Calls to Google: the name under which this process makes them. Of Pub/Sub: the client, one unary method on raw protobuf, one rule of when
a call is repeated, one translation of errors.

Google's packages are imported when a client is made: importing this module stays cheap.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from batch.copies import copies
from batch.model.clock import Clock, SystemClock
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError, ServiceRefused, Unreached

T = TypeVar("T")

RETRY_WITHIN_S = 30.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 4.0
_TRANSIENT = frozenset({"UNAVAILABLE", "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNKNOWN"})
_FORBIDDEN = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION"})
_UNREACHED = (
    "failed to connect",
    "connection refused",
    "connection reset",
    "socket closed",
    "dns resolution failed",
    "network is unreachable",
    "no route to host",
    "server unavailable",
    "getting metadata from plugin failed",
)
"""What gRPC says, beside UNAVAILABLE, where no answer is Pub/Sub's; of the last two it is a token that does not come."""
_CAUSES = {
    "billing": "billing is off for its project: link an account with `gcloud billing projects link {project} --billing-account=ACCOUNT`",
    "kms": (
        "the topic's key (CMEK) cannot be used: grant Pub/Sub's service agent roles/cloudkms.cryptoKeyEncrypterDecrypter on it, and look "
        "whether its version is enabled"
    ),
    "has not been used in project": "the API of Pub/Sub is off: `gcloud services enable pubsub.googleapis.com --project={project}`",
    "vpc service controls": "VPC Service Controls forbid it: bring this identity and the project into one perimeter, or let it in",
    "subscription type": "only a subscription that is pulled can be drained: not one that pushes, or exports to BigQuery or Cloud Storage",
    "detached": "the subscription was detached from its topic: create another, or name it in SUBSCRIPTION_NAME",
}
"""What is the case and what mends it, by a word of the answer."""
VERSION = "0.1.0"
"""The distribution's own, which an image that holds copied packages cannot ask for."""


class _Role:
    """What this process is, set by its entry before it makes a client: `worker`, `dead-letters`, `intake`, `controller`, `cli`; by default
    the client of a user's own program."""

    def __init__(self) -> None:
        self.name = "client"


role = _Role()


def user_agent() -> str:
    """The name under which clients that are made from now on call Google, `fanout-<role>/<version>`.

    HTTP requests have it in `User-Agent`, which Cloud Audit Logs show as `callerSuppliedUserAgent`; calls of generated clients, and over
    gRPC, have it in `x-goog-api-client`. So who reads a log tells a worker from the controller, also where both run as one account, and the
    local cloud records calls by it. Nothing checks it: the account of a process decides what it may do, never this name.
    """
    return f"fanout-{role.name}/{VERSION}"


def client_info() -> Any:
    """For Google's generated clients: a google.api_core.gapic_v1.client_info.ClientInfo."""
    from google.api_core.gapic_v1.client_info import ClientInfo

    return ClientInfo(user_agent=user_agent())


def http_client_info() -> Any:
    """For Google's storage client: a google.api_core.client_info.ClientInfo."""
    from google.api_core.client_info import ClientInfo

    return ClientInfo(user_agent=user_agent())


@dataclass(frozen=True, slots=True)
class Resource:
    """A subscription or topic, for the messages."""

    kind: str
    project: str
    name: str

    @property
    def path(self) -> str:
        """Its full resource name."""
        return f"projects/{self.project}/{self.kind}s/{self.name}"


def resource_of(kind: str, name: str, project: str) -> Resource:
    """By its full name, or by its short one in `project`."""
    parts = name.split("/")
    return Resource(kind, parts[1], parts[3]) if len(parts) == 4 else Resource(kind, project, name)


def code_of(error: Exception) -> str:
    """The name of an error's gRPC status; UNKNOWN when it has none."""
    code = getattr(error, "grpc_status_code", None)
    return str(getattr(code, "name", "UNKNOWN"))


def translated(action: str, resource: Resource, code: str, detail: str) -> FanoutError:
    """Our error for a gRPC status, by the status' name."""
    detail = " ".join(detail.split())[:500]
    what = f"cannot {action} {resource.kind} {resource.path}"
    if code == "NOT_FOUND":
        place = f"create {resource.name} --project={resource.project}"
        creation, setting = f"gcloud pubsub topics {place}", "TOPIC_NAME, LANES or DEAD_LETTER_TOPIC"
        if resource.kind == "subscription":
            creation, setting = f"gcloud pubsub subscriptions {place} --topic=TOPIC", "SUBSCRIPTION_NAME"
        return DependencyMissing(f"{what}: {resource.kind} {resource.path} does not exist: create it with `{creation}`, or fix {setting}")
    if code in _FORBIDDEN:
        cause = next((advice for word, advice in _CAUSES.items() if word in detail.lower()), "")
        if cause:
            return DependencyForbidden(f"{what}: refused ({code}): {cause.format(project=resource.project)}: {detail}")
        if code == "FAILED_PRECONDITION":
            look = f"gcloud pubsub {resource.kind}s describe {resource.name} --project={resource.project}"
            return DependencyForbidden(f"{what}: refused ({code}): it cannot be used as it is set up; look at `{look}`: {detail}")
        grant = "roles/pubsub.publisher"
        if resource.kind == "subscription":
            grant = "the custom role fanoutConsumer, or roles/pubsub.subscriber and roles/pubsub.viewer,"
        return DependencyForbidden(f"{what}: refused ({code}): grant this identity {grant} on it, or run as another identity: {detail}")
    if code in _TRANSIENT:
        kind = Unreached if code == "UNAVAILABLE" and any(one in detail.lower() for one in _UNREACHED) else DependencyUnavailable
        return kind(f"{what}: Pub/Sub answered {code} until the time for retries was over; try again later: {detail}")
    return ServiceRefused(f"{what}: Pub/Sub refused the request ({code}); repeating it cannot help: {detail}")


def confirmed(topic: Resource, ids: list[str], count: int) -> list[str]:
    """The ids of `count` published messages. Raises DependencyUnavailable for an answer that has other ones: none is known to be there."""
    if len(ids) != count:
        what = f"cannot publish to topic {topic.path}: the answer has {len(ids)} message ids for {count} messages"
        raise DependencyUnavailable(f"{what}, which is not Pub/Sub's; find the proxy in between")
    return ids


class Pauses:
    """When one call is repeated: after growing pauses with jitter, while its error may pass and its time lasts."""

    def __init__(self, until_s: float, rng: random.Random, *, longest_s: float = LONGEST_PAUSE_S) -> None:
        """`until_s` is on the caller's clock."""
        self._until_s, self._rng, self._longest_s = until_s, rng, longest_s
        self._next_s = FIRST_PAUSE_S

    def after(self, error: Exception, now_s: float) -> float | None:
        """Seconds to wait before the next try; None: this error is the last word."""
        pause_s = min(self._longest_s, self._next_s) * self._rng.uniform(0.5, 1.5)
        self._next_s *= 2
        return None if code_of(error) not in _TRANSIENT or now_s + pause_s >= self._until_s else pause_s


class Caller:
    """Runs calls about one resource from threads: repeats what may pass, translates what does not. Safe from any thread."""

    def __init__(
        self, resource: Resource, clock: Clock | None, rng: random.Random | None, retry_within_s: float, request_timeout_s: float
    ) -> None:
        """`retry_within_s` bounds a call with its retries, `request_timeout_s` one request."""
        from google.api_core import exceptions as api_errors

        self.resource = resource
        self._copy_count = copies.count
        self._retry_within_s, self._request_timeout_s = retry_within_s, request_timeout_s
        self.clock: Clock = clock or SystemClock()
        self.rng = rng or random.Random()
        self.closed = threading.Event()
        self.failure: type[Exception] = api_errors.GoogleAPICallError

    def refuse_in_copy(self) -> None:
        """Raises CopyRefused in a copy of the process that made this: its channel has no threads there."""
        path = self.resource.path
        copies.refuse(self._copy_count, f"is connected to {path}: call Pub/Sub there, or from a program of its own (subprocess, spawn)")

    def until_s(self) -> float:
        """When the retries of a call that begins now are over."""
        return self.clock.monotonic() + self._retry_within_s

    def repeated(self, call: Callable[[float], T], until_s: float, request_timeout_s: float | None = None) -> T:
        """`call(timeout_s)` until it succeeds, fails for good, or the clock passes `until_s`; it runs at least once. Raises `failure`,
        CopyRefused."""
        self.refuse_in_copy()
        pauses = Pauses(until_s, self.rng)
        while True:
            left_s = until_s - self.clock.monotonic()
            try:
                return call(max(1.0, min(request_timeout_s or self._request_timeout_s, left_s)))
            except self.failure as error:
                pause_s = pauses.after(error, self.clock.monotonic())
                if pause_s is None or self.closed.is_set():
                    raise
            self.clock.wait(self.closed, pause_s)

    def ours(self, action: str, error: Exception) -> FanoutError:
        """The error to raise for one of Google's."""
        return translated(action, self.resource, code_of(error), str(error))


def client_for(resource: Resource, kind: Any, transport: Any) -> Any:
    """A generated client; with PUBSUB_EMULATOR_HOST on a plain channel, which Google's clients do not open by themselves. Raises
    DependencyForbidden when there are no credentials."""
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    if emulator:
        import grpc

        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return kind(transport=transport(channel=grpc.insecure_channel(emulator, options=options), client_info=client_info()))
    with credentials_for(f"{resource.kind} {resource.path}"):
        return kind(client_info=client_info())


def awaits_credentials() -> bool:
    """Whether credentials that are not found may yet come: on Cloud Run the metadata server has them."""
    return "CLOUD_RUN_EXECUTION" in os.environ and "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ


@contextmanager
def credentials_for(what: str) -> Iterator[None]:
    """Raises DependencyForbidden, or Unreached, when `what` cannot be used because the client finds no credentials."""
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAuthError as error:
        raise (Unreached if awaits_credentials() else DependencyForbidden)(
            f"cannot use {what}: there are no usable Google credentials; on a laptop run "
            f"`gcloud auth application-default login`, or set PUBSUB_EMULATOR_HOST for a local one: {error}"
        ) from error


def raw_call(client: Any, method: str, request: Any, response: Any, routing: tuple[str, str]) -> Callable[[Any, float], Any]:
    """`call(message, timeout_s)` of `method` (`/package.Service/Method`) with messages of the protobuf classes `request` and `response`;
    `routing` is the field by which the service finds the resource. The call raises google.api_core.exceptions.GoogleAPICallError.

    The layers of the generated client cost 0.2 ms of processor time a call, three times the call itself: of a pull that brings a
    hundred messages that is 2 µs for each. Channel, credentials, headers and errors are the client's own.
    """
    from google.api_core.exceptions import from_grpc_error
    from google.api_core.gapic_v1.routing_header import to_grpc_metadata
    from grpc import RpcError

    metadata = (to_grpc_metadata((routing,)), client_info().to_grpc_metadata())
    stub = client.transport.grpc_channel.unary_unary(
        method, request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )

    def call(message: Any, timeout_s: float) -> Any:
        try:
            return stub(message, timeout=timeout_s, metadata=metadata)
        except RpcError as error:
            raise from_grpc_error(error) from error

    return call


def batches(items: Iterable[T], size_of: Callable[[T], int], max_count: int, max_bytes: int) -> Iterator[list[T]]:
    """The items in order, in requests within both limits; one that is too large by itself travels alone."""
    batch: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if batch and (len(batch) >= max_count or total + size > max_bytes):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch
