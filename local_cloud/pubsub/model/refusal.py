"""The errors that the Pub/Sub model answers with: one function per kind, so that every method says the same in the same case.

A refusal carries the canonical status name (`NOT_FOUND`, …) and never knows the transport that reports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

# With more, the error would not fit into the 8 KiB of metadata that a client takes when it talks to an emulator.
_REPORTED_MAX_COUNT = 32


class Refusal(Exception):
    """A request that is answered with an error. `code` is a canonical gRPC status name, `text` is what the caller reads.

    With a `reason`, a program can read it too: as google.rpc.ErrorInfo, with `metadata`.
    """

    def __init__(self, code: str, text: str, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.reason = reason
        self.metadata = dict(metadata or {})


def not_found(name: str) -> Refusal:
    """The topic or subscription `name` does not exist; like the real service, the text carries the short name."""
    return Refusal("NOT_FOUND", f"Resource not found (resource={name.rsplit('/', 1)[-1]}).")


def already_exists(name: str) -> Refusal:
    return Refusal("ALREADY_EXISTS", f"Resource already exists in the project (resource={name.rsplit('/', 1)[-1]}).")


def invalid(text: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", text)


def failed_precondition(text: str) -> Refusal:
    return Refusal("FAILED_PRECONDITION", text)


def ack_ids_failed(ack_ids: Iterable[str]) -> Refusal:
    """Acknowledgements or deadlines that had no effect, on a subscription with exactly-once delivery: the first of them are named.

    Reason and values are those that Google's clients look for:
    https://cloud.google.com/pubsub/docs/exactly-once-delivery
    """
    named = dict.fromkeys(islice(ack_ids, _REPORTED_MAX_COUNT), "PERMANENT_FAILURE_INVALID_ACK_ID")
    text = "Some acknowledgement ids in the request were invalid. This could be because they have expired."
    return Refusal("INVALID_ARGUMENT", text, "EXACTLY_ONCE_ACKID_FAILURE", named)


def detached(name: str) -> Refusal:
    return failed_precondition(f"The subscription is detached from its topic (resource={name.rsplit('/', 1)[-1]}).")


def stopping() -> Refusal:
    return Refusal("UNAVAILABLE", "The local Pub/Sub is stopping. Connect again.")


def too_many_waiting(maximum: int) -> Refusal:
    text = f"The local Pub/Sub has {maximum} pulls and streams waiting already: close some, or use fewer clients at a time."
    return Refusal("RESOURCE_EXHAUSTED", text)


def unsupported(what: str) -> Refusal:
    """The real service has `what`, this one does not."""
    return Refusal("UNIMPLEMENTED", f"The local Pub/Sub does not support {what} yet.")


def too_large(field: str, passed: int, maximum: int) -> Refusal:
    return invalid(f"The value for {field} is too large. You passed {passed} in the request, but the maximum value is {maximum}.")


def too_small(field: str, passed: int, minimum: int) -> Refusal:
    return invalid(f"The value for {field} is too small. You passed {passed} in the request, but the minimum value is {minimum}.")
