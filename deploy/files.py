"""Files that are deployed: filled with values, and compared with what is there.

python files.py fill FILE NAME=VALUE…            the file (JSON or YAML) as JSON, with ${NAME} replaced; what is empty then is left out
python files.py put FILE VALUE KEY…              one field of a JSON file, by the names that lead to it
python files.py compare WANTED LIST KEY          WANTED against the item of a list (JSON) with the same KEY, a dotted path:
                                                 "missing", "same NAME", or "differs NAME: PATH is VALUE; …"
A field that is not wanted may be anything: Google adds its own. One that is wanted as null must not be there.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_EMPTY = "(empty)"
_NAME = re.compile(r"\$\{([A-Z_]+)\}")


def filled(text: str, suffix: str, values: Mapping[str, str]) -> Any:
    """The parsed text with every ${NAME} of `values` replaced. A field, or an entry of a list, that became empty is left out, and so is one
    that holds only such fields beside its name."""
    whole = _NAME.sub(lambda found: (values[found[1]] or _EMPTY) if found[1] in values else found[0], text)
    if suffix != ".yaml":
        return _without_empty(json.loads(whole))
    import yaml  # most files are JSON, and a deployment looks at many

    return _without_empty(yaml.safe_load(whole))


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: made for key, one in value.items() if (made := _without_empty(one)) != _EMPTY}
        return _EMPTY if len(kept) < len(value) and set(kept) <= {"name", "key"} else kept
    if isinstance(value, list):
        return [made for one in value if (made := _without_empty(one)) != _EMPTY]
    return value


def differences(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """What of `wanted` is not so in `found`: `PATH is VALUE`."""
    if isinstance(wanted, dict) and isinstance(found, dict | None):
        for key, value in wanted.items():
            yield from differences(value, (found or {}).get(key), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(found, list):
        if path.endswith((".env", "Permissions", ".labels")):
            wanted, found = sorted(wanted, key=_name), sorted(found, key=_name)
        if len(wanted) != len(found):
            yield f"{path} has {len(found)} entries, not {len(wanted)}"
        for at, (one, other) in enumerate(zip(wanted, found, strict=False)):
            yield from differences(one, other, f"{path}[{at}]")
    elif not _same(wanted, found):
        yield f"{path} is {json.dumps(found)[:80]}"


def _name(one: Any) -> str:
    """What tells an entry of a list without order from the others."""
    return str(one.get("name") or one.get("key")) if isinstance(one, dict) else str(one)


def _same(wanted: Any, found: Any) -> bool:
    """Google leaves out what is false, empty or 0, and writes whole numbers as texts."""
    if not wanted and not found:
        return True
    return wanted == found or str(wanted) == str(found)


def compared(wanted: Any, items: list[Any], key: str) -> str:
    """One line, as the head of this file says."""
    value = _at(wanted, key)
    found = next((one for one in items if str(_at(one, key)) == str(value)), None)
    if found is None:
        return "missing"
    name = found.get("name") or _at(found, "metadata.name")
    problems = "; ".join(differences(wanted, found))
    return f"differs {name}: {problems}" if problems else f"same {name}"


def _at(value: Any, key: str) -> Any:
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def put(whole: Any, value: str, keys: list[str]) -> None:
    """Changes `whole`."""
    for key in keys[:-1]:
        whole = whole.setdefault(key, {})
    whole[keys[-1]] = value


def main(arguments: list[str]) -> int:
    verb, first, *rest = arguments
    path = Path(first)
    if verb == "put":
        whole = json.loads(path.read_text(encoding="utf-8"))
        put(whole, rest[0], rest[1:])
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        return 0
    values = dict(one.split("=", 1) for one in rest) if verb == "fill" else {}
    wanted = filled(path.read_text(encoding="utf-8"), path.suffix, values)
    if verb == "fill":
        sys.stdout.write(json.dumps(wanted, indent=2) + "\n")
    else:
        found = json.loads(Path(rest[0]).read_text(encoding="utf-8") or "[]")
        sys.stdout.write(compared(wanted, found if isinstance(found, list) else [found], rest[1]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
