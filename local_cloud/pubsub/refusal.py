"""The refusals of the Pub/Sub model: one function per kind, so that every method says the same thing in the same case.

A refusal carries the canonical status name (`NOT_FOUND`, …) and never knows the transport that reports it.
"""

from __future__ import annotations


class Refusal(Exception):
    """A request that is answered with an error. `code` is a canonical gRPC status name, `text` is what the caller reads."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


def not_found(name: str) -> Refusal:
    """The topic or subscription `name` does not exist; like the real service, the text carries the short name."""
    return Refusal("NOT_FOUND", f"Resource not found (resource={name.rsplit('/', 1)[-1]}).")


def already_exists(name: str) -> Refusal:
    return Refusal("ALREADY_EXISTS", f"Resource already exists in the project (resource={name.rsplit('/', 1)[-1]}).")


def invalid(text: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", text)


def unsupported(what: str) -> Refusal:
    """Something that the real service has and this one lacks."""
    return Refusal("UNIMPLEMENTED", f"The local Pub/Sub does not support {what} yet.")


def too_large(field: str, passed: int, maximum: int) -> Refusal:
    return invalid(f"The value for {field} is too large. You passed {passed} in the request, but the maximum value is {maximum}.")


def too_small(field: str, passed: int, minimum: int) -> Refusal:
    return invalid(f"The value for {field} is too small. You passed {passed} in the request, but the minimum value is {minimum}.")
