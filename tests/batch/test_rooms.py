"""Two rules of imports beside those of the whole code base: services are used through their ports, and a name has one path."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THROUGH_PORTS = ("handling", "client", "handlers", "child", "testing")
"""Rooms that know services by `batch.services.ports` alone, so that they work with any."""
FACES = {"batch", "batch.testing", "batch.client.http"}
"""What imports a name only to offer it."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "batch").rglob("*.py"))}
IMPORTING = {
    name_of(path): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("batch", "controller", "intake", "fanout", "bench", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of each import from one of ours; the name is empty for a module."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, "") if whole in MODULES else (node.module or "", alias.name)
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
    wrong = {name: found for name, module in MODULES.items() if name.split(".")[1:2] == [room] and (found := past_the_ports(module))}
    assert not wrong, f"use batch.services.ports: {wrong}"


def test_a_name_is_imported_from_where_it_is_made() -> None:
    made = {name: defined(module) for name, module in MODULES.items() if name not in FACES}
    detours = [
        f"{importer} imports {name} from {target}, which imports it itself"
        for importer, module in IMPORTING.items()
        for target, name in imports(module)
        if name and target in made and name not in made[target]
    ]
    assert not detours


def test_wrong_imports_are_found() -> None:
    text = "from batch.services import objects\nfrom batch.services.ports import Topic\nfrom batch.model.outcomes import json"
    assert past_the_ports(ast.parse(text)) == {"batch.services.objects"}
    assert ("batch.model.outcomes", "json") in set(imports(ast.parse(text)))
    assert "json" not in defined(MODULES["batch.model.outcomes"])
