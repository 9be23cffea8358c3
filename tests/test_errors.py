"""The tree of errors is drawn whole: every class of error in the product stands in it, with its base and its module."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import batch.model.errors

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("batch", "controller", "intake", "fanout")
TREE = "batch.model.errors"
_LINE = re.compile(r"    (?P<branches>(?:[│├└ ][ ─]{2} )*)(?P<name>[A-Z]\w+)(?: +(?:\((?P<module>[\w.]+)\))?.*)?")


@dataclass(frozen=True, order=True)
class Drawn:
    """One line of the tree. `base` is empty for a root."""

    module: str
    name: str
    base: str


def drawn(text: str) -> list[Drawn]:
    """The lines of all trees in a docstring."""
    found: list[Drawn] = []
    path: list[str] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        depth = len(match["branches"]) // 4
        path[depth:] = [match["name"]]
        found.append(Drawn(match["module"] or TREE, match["name"], path[depth - 1] if depth else ""))
    return found


def modules() -> dict[str, ast.Module]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths, strict=True)}


def classes(trees: dict[str, ast.Module]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The bases of every class, each by module and name; a module that is not ours is the class's own."""
    found = {}
    for module, tree in trees.items():
        home = {node.name: (module, node.name) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        imported = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[module, node.name] = list(_bases(node, imported | home))
    return found


def _bases(node: ast.ClassDef, known: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for base in node.bases:
        name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        module, _, own = name.rpartition(".")
        yield known.get(name, (module or "builtins", own))


def is_error(one: tuple[str, str], known: dict[tuple[str, str], list[tuple[str, str]]]) -> bool:
    if one in known:
        return any(is_error(base, known) for base in known[one])
    module, name = one
    if module.split(".")[0] in PACKAGES:
        return False
    value = getattr(importlib.import_module(module), name, None)
    return isinstance(value, type) and issubclass(value, BaseException)


def written(trees: dict[str, ast.Module]) -> set[Drawn]:
    """The classes of error, without those that are private to their module, one for each base that is an error."""
    known = classes(trees)
    errors = [one for one in known if not one[1].startswith("_") and is_error(one, known)]
    return {Drawn(module, name, base[1]) for module, name in errors for base in known[module, name] if is_error(base, known)}


def difference(text: str, trees: dict[str, ast.Module]) -> tuple[set[Drawn], set[Drawn]]:
    """What stands in the code and not in the tree, and what in the tree and not in the code."""
    lines = drawn(text)
    roots = {one.name for one in lines if not one.base}
    in_tree = {one for one in lines if one.base}
    in_code = {one for one in written(trees) if not (one.module == TREE and one.name in roots)}
    return in_code - in_tree, in_tree - in_code


def test_every_error_stands_in_the_tree_and_nothing_else_does() -> None:
    missing, gone = difference(batch.model.errors.__doc__ or "", modules())
    assert not missing, f"draw these in {TREE}: {sorted(missing)}"
    assert not gone, f"these stand in the tree and not in the code: {sorted(gone)}"


def test_the_tree_is_read_as_it_is_drawn() -> None:
    lines = drawn(batch.model.errors.__doc__ or "")
    assert len(lines) == len({(one.module, one.name) for one in lines}) > 30
    assert Drawn(TREE, "Snooze", "HandlerSignal") in lines
    assert Drawn("controller.observe.jobs", "LaunchUnclear", "DependencyUnavailable") in lines


TREE_TEXT = """
    FanoutError
    ├── First   (a.b) words
    │   └── Second   (a.b) words
    └── Third   (a.c) words
"""
CODE = """
from batch.model.errors import FanoutError as Base
import click

class First(Base): ...
class Second(First): ...
class Plain: ...
class _Private(Base): ...
"""


@pytest.mark.parametrize(
    ("change", "into", "missing", "gone"),
    [
        ("", "", set(), set()),
        ("class Plain: ...", "class Plain(Second): ...", {Drawn("a.b", "Plain", "Second")}, set()),
        ("class Plain: ...", "class Plain(click.UsageError): ...", {Drawn("a.b", "Plain", "UsageError")}, set()),
        ("class Plain: ...", "class Plain(KeyError): ...", {Drawn("a.b", "Plain", "KeyError")}, set()),
        ("class Second(First)", "class Second(Base)", {Drawn("a.b", "Second", "FanoutError")}, {Drawn("a.b", "Second", "First")}),
        ("class Second(First): ...", "", set(), {Drawn("a.b", "Second", "First")}),
    ],
)
def test_a_missing_a_moved_and_a_vanished_error_are_found(change: str, into: str, missing: set[Drawn], gone: set[Drawn]) -> None:
    code = {
        TREE: "class FanoutError(Exception): ...",
        "a.b": CODE.replace(change, into),
        "a.c": "from batch.model.errors import FanoutError\nclass Third(FanoutError): ...",
    }
    assert difference(TREE_TEXT, {name: ast.parse(text) for name, text in code.items()}) == (missing, gone)
