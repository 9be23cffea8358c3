"""Errors on the wire: what a service said to the worker is raised in the child, as the same type with the same words."""

from __future__ import annotations

from typing import Any

from batch.model import errors
from batch.model.errors import ObjectMissing, PreconditionFailed, text_of

_TOLD_BY_TEXT = {
    one.__name__: one
    for one in (
        errors.DependencyError,
        errors.DependencyMissing,
        errors.DependencyForbidden,
        errors.DependencyUnavailable,
        errors.NameRefused,
        errors.FanoutError,
    )
}
_OF_PYTHON: dict[str, type[Exception]] = {one.__name__: one for one in (TypeError, ValueError, NotImplementedError, OSError, MemoryError)}


def packed(error: BaseException) -> dict[str, Any]:
    """An error as JSON."""
    if isinstance(error, ObjectMissing):
        return {"type": "ObjectMissing", "name": error.name}
    if isinstance(error, PreconditionFailed):
        return {"type": "PreconditionFailed", "name": error.name, "if_generation": error.if_generation}
    known = next((one.__name__ for one in type(error).__mro__ if one.__name__ in _TOLD_BY_TEXT or one.__name__ in _OF_PYTHON), "")
    return {"type": known or type(error).__name__, "text": text_of(error)}


def unpacked(told: dict[str, Any]) -> BaseException:
    """The error again; a type that is not known here becomes a RuntimeError that names it."""
    name, text = str(told.get("type")), str(told.get("text", ""))
    if name == "ObjectMissing":
        return ObjectMissing(told["name"])
    if name == "PreconditionFailed":
        return PreconditionFailed(told["name"], int(told["if_generation"]))
    known: type[Exception] | None = _TOLD_BY_TEXT.get(name) or _OF_PYTHON.get(name)
    return known(text) if known is not None else RuntimeError(f"{name}: {text}")
