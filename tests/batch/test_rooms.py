"""The rooms of `batch`: imports between them go one way, a name has one path to be imported by, and public names say what they are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEAVES = {"batch.events", "batch.settings", "batch.memory", "batch.server"}
"""Modules beside the rooms. They import only the model and each other, and every room but the model may import them."""
MAY_IMPORT = {
    "model": {"batch.model"},
    "services": {"batch.model", "batch.services"},
    "handling": {"batch.model", "batch.services.ports", "batch.handling"},
    "client": {"batch.model", "batch.services.ports", "batch.handling", "batch.client"},
    "handlers": {"batch.model", "batch.handling", "batch.handlers"},
    "child": {"batch.model", "batch.services.ports", "batch.handling", "batch.child"},
    "worker": {"batch.model", "batch.services", "batch.handling", "batch.child", "batch.worker"},
    "testing": {"batch.model", "batch.services.ports", "batch.handling", "batch.worker", "batch.testing"},
}
FACES = {"batch", "batch.testing"}
DOCUMENTED = ("model", "services", "handling", "client")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "batch").rglob("*.py"))}
IN_ROOMS = [name for name in MODULES if name.count(".") > 1]
IMPORTING = [
    path for folder in ("batch", "controller", "intake", "fanout", "bench", "tests") for path in sorted((ROOT / folder).rglob("*.py"))
]


def imports(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name, as far as both are ours; the name is empty for an imported module."""
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


def wrong_imports(room: str, module: ast.Module) -> set[str]:
    allowed = MAY_IMPORT[room]
    ours = {target for target, _ in imports(module) if target.split(".")[0] == "batch"}
    fine = {target for target in ours if any(target == one or target.startswith(f"{one}.") for one in allowed)}
    return ours - fine - (LEAVES if room != "model" else set())


@pytest.mark.parametrize("name", IN_ROOMS)
def test_imports_between_rooms_go_one_way(name: str) -> None:
    room = name.split(".")[1]
    wrong = wrong_imports(room, MODULES[name])
    assert not wrong, f"{name} imports {sorted(wrong)}; batch/{room} may import {sorted(MAY_IMPORT[room])}"


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_what_stands_beside_the_rooms_imports_none_but_the_model(name: str) -> None:
    assert not wrong_imports("model", MODULES[name]) - LEAVES


def test_a_wrong_import_is_found() -> None:
    assert wrong_imports("model", ast.parse("if TYPE_CHECKING:\n    from batch.services.ports import ObjectStore")) == {
        "batch.services.ports"
    }
    assert wrong_imports("client", ast.parse("from batch.services import pubsub")) == {"batch.services.pubsub"}
    assert wrong_imports("handling", ast.parse("import json\nfrom batch.services.ports import Topic\nimport batch.events")) == set()


def test_a_name_is_imported_from_where_it_is_made() -> None:
    made = {name: defined(module) for name, module in MODULES.items() if name not in FACES}
    detours = [
        f"{name_of(path)} imports {name} from {target}, which imports it itself"
        for path in IMPORTING
        for target, name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name and target in made and name not in made[target]
    ]
    assert not detours


def undocumented(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Public functions, classes and their public methods that have no docstring."""
    for one in node.body:
        if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not one.name.startswith("_"):
            if ast.get_docstring(one) is None:
                yield one.name
            if isinstance(one, ast.ClassDef):
                yield from undocumented(one)


@pytest.mark.parametrize("name", [name for name in IN_ROOMS if name.split(".")[1] in DOCUMENTED])
def test_public_names_say_what_they_are(name: str) -> None:
    assert not list(undocumented(MODULES[name]))


def test_a_name_without_a_word_is_found() -> None:
    text = "def _own(): ...\nclass A:\n    'Words.'\n    def put(self): ...\ndef get(): ..."
    assert list(undocumented(ast.parse(text))) == ["put", "get"]
