"""Changes of a payload: a JSON merge patch (RFC 7396) or a JSON patch (RFC 6902), and what differs after one. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from batch.model.message import short

Patch = Callable[[dict[str, Any]], dict[str, Any]]
"""Raises ValueError where it does not fit."""


def patch_of(text: str) -> Patch:
    """An object is a merge patch, a list is a JSON patch. Raises ValueError with what is wrong."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the patch is not JSON: {error}") from error
    if isinstance(given, dict):
        return lambda body: _merged(body, given)
    if not isinstance(given, list) or not given:
        raise ValueError(f'a patch is an object such as {{"width": 10}}, or a list of operations; got {short(given)}')
    import jsonpatch  # only here: the other commands start without it
    import jsonpointer

    wrong = (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException)
    try:
        operations = jsonpatch.JsonPatch(given)
    except wrong as error:
        raise ValueError(f"the patch is no JSON patch: {error}") from error

    def patched(body: dict[str, Any]) -> dict[str, Any]:
        try:
            after = operations.apply(body)
        except wrong as error:
            raise ValueError(f"the patch does not fit: {error}") from error
        if not isinstance(after, dict):
            raise ValueError(f"what the patch leaves is no JSON object but {short(after)}")
        return after

    return patched


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """`width: 10 -> 20`, for each field that is another."""
    for name in dict.fromkeys([*before, *after]):
        if name not in after:
            yield f"{name}: {short(before[name])} -> removed"
        elif name not in before:
            yield f"{name}: added {short(after[name])}"
        elif before[name] != after[name]:
            yield f"{name}: {short(before[name])} -> {short(after[name])}"


def _merged(body: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(body) if isinstance(body, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
