"""Two rules of imports beside those of the whole code base: services are used through their ports, and a name has one path."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("structure")  # the sources are parsed once

ROOT = Path(__file__).resolve().parents[2]
THROUGH_PORTS = ("handling", "client", "handlers", "child", "testing")
"""Rooms that know services by `batch.services.ports` alone, so that they work with any."""
FACES = {"batch", "batch.testing", "batch.client.http"}
"""What imports a name only to offer it."""
IMPORT = re.compile(r"^[ ]*from batch[\w.]* import (?:\([^)]*\)|[^(\n]*)", re.MULTILINE)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, ast.Module]:
    """Those of `batch`. Parsing takes a second, so it is done by the tests that need it."""
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "batch").rglob("*.py"))}


def imports(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of each import from one of ours; the name is empty for a module."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, "") if whole in modules() else (node.module or "", alias.name)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def defined(module: ast.Module) -> set[str]:
    """The names that a module makes itself."""
    made = {node.name for node in module.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    targets = [target for node in module.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in module.body if isinstance(node, ast.AnnAssign)]
    return made | {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}


def past_the_ports(module: ast.Module) -> set[str]:
    return {name for name, _ in imports(module) if name.startswith("batch.services") and name != "batch.services.ports"}


@pytest.mark.parametrize("room", THROUGH_PORTS)
def test_services_are_known_by_their_ports(room: str) -> None:
    wrong = {name: found for name, module in modules().items() if name.split(".")[1:2] == [room] and (found := past_the_ports(module))}
    assert not wrong, f"use batch.services.ports: {wrong}"


def detours(text: str, made: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Module and name of what a text imports from where it is not made. It is parsed only when its lines look like that."""
    looks = (ast.parse(statement.strip()) for statement in IMPORT.findall(text))
    if not any(found(module, made) for module in looks):
        return []
    return found(ast.parse(text), made)


def found(module: ast.Module, made: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    return [(target, name) for target, name in imports(module) if name and target in made and name not in made[target]]


def test_a_name_is_imported_from_where_it_is_made() -> None:
    made = {name: defined(module) for name, module in modules().items() if name not in FACES}
    paths = [path for folder in ("batch", "controller", "intake", "fanout", "bench", "tests") for path in (ROOT / folder).rglob("*.py")]
    wrong = [
        f"{name_of(path)} imports {name} from {target}, which imports it itself"
        for path in paths
        for target, name in detours(path.read_text(encoding="utf-8"), made)
    ]
    assert not wrong


def test_wrong_imports_are_found() -> None:
    text = "from batch.services import objects\nfrom batch.services.ports import Topic\nfrom batch.model.outcomes import json"
    assert past_the_ports(ast.parse(text)) == {"batch.services.objects"}
    assert ("batch.model.outcomes", "json") in set(imports(ast.parse(text)))
    made = {"batch.model.outcomes": defined(modules()["batch.model.outcomes"])}
    assert detours(text, made) == [("batch.model.outcomes", "json")]
    assert detours("def lazy() -> None:\n    from batch.model.outcomes import (\n        OutcomeLine,\n        json,\n    )\n", made)
    assert not detours(f"text = {text!r}", made)
