"""Changes of a payload: a JSON merge patch (RFC 7396) or a JSON patch (RFC 6902), and what differs after one. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
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
    for one in given:
        if not isinstance(one, dict) or one.get("op") not in _OPERATIONS or not isinstance(one.get("path"), str):
            raise ValueError(f"an operation has an op of {', '.join(_OPERATIONS)} and a path such as /width; got {short(one)}")
        lacking = [name for name in _OPERATIONS[one["op"]] if name not in one]
        if lacking:
            raise ValueError(f"operation {short(one)} lacks {lacking[0]!r}")
    return lambda body: _patched(body, given)


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


_OPERATIONS: dict[str, tuple[str, ...]] = {
    "add": ("value",),
    "remove": (),
    "replace": ("value",),
    "test": ("value",),
    "move": ("from",),
    "copy": ("from",),
}


def _patched(body: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    root: dict[str, Any] = {"": deepcopy(body)}
    for one in operations:
        op, path = one["op"], one["path"]
        try:
            if op == "test":
                if _value(root, path) != one["value"]:
                    raise ValueError(f"is {short(_value(root, path))}, not {short(one['value'])}")
                continue
            value = deepcopy(one["value"] if op in ("add", "replace") else _value(root, one["from"] if op in ("move", "copy") else path))
            if op != "add" and op != "copy":
                _remove(root, one["from"] if op == "move" else path)
            if op != "remove":
                _add(root, path, value)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{op} {path}: there is no {error}") from error
        except ValueError as error:
            raise ValueError(f"{op} {path}: {error}") from error
    if not isinstance(root[""], dict):
        raise ValueError(f"what the patch leaves is no JSON object but {short(root[''])}")
    return root[""]


def _way(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise ValueError("a path begins with a slash, such as /width")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]


def _value(root: Any, path: str) -> Any:
    for part in _way(path):
        root = root[int(part)] if isinstance(root, list) else root[part]
    return root


def _parent(root: Any, path: str) -> tuple[Any, str]:
    way = _way(path)
    for part in way[:-1]:
        root = root[int(part)] if isinstance(root, list) else root[part]
    return root, way[-1]


def _add(root: Any, path: str, value: Any) -> None:
    parent, last = _parent(root, path)
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        parent[last] = value


def _remove(root: Any, path: str) -> None:
    parent, last = _parent(root, path)
    if isinstance(parent, list):
        del parent[int(last)]
    else:
        del parent[last]
