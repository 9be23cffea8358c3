"""The rules of the code base that a reader should not have to check: import directions, sizes, names, time and chance."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("batch", "controller", "intake", "fanout", "local_cloud", "bench")
MAY_IMPORT = {
    "batch": {"batch"},
    "intake": {"intake", "batch"},
    "controller": {"controller", "batch"},
    "local_cloud": {"local_cloud"},
    "fanout": {"fanout", "batch", "controller", "intake", "local_cloud"},
    "bench": {"bench", "batch", "controller", "intake", "local_cloud"},
}
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
CLOCKS = {"batch/model/clock.py", "local_cloud/clock.py"}
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def test_the_modules_are_found() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    wrong = {name for name in imports(tree(path)) if name.split(".")[0] in {*PACKAGES, "tests"} - MAY_IMPORT[package]}
    assert not wrong, f"{name_of(path)} imports {sorted(wrong)}; {package} may import {sorted(MAY_IMPORT[package])}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sizes(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, f"{name_of(path)} has {lines} lines, at most {MAX_MODULE_LINES}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{name_of(path)}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem not in ("__init__", "__main__")], ids=name_of)
def test_no_module_is_named_like_one_of_the_standard_library(path: Path) -> None:
    assert path.stem not in sys.stdlib_module_names, f"rename {name_of(path)}"


BANNED = {("time", name) for name in ("time", "monotonic", "perf_counter", "sleep", "time_ns", "monotonic_ns")} | {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
}
GLOBAL_CHANCE = {"random", "randint", "choice", "choices", "shuffle", "uniform", "randrange", "sample", "seed", "getrandbits"}


@pytest.mark.parametrize("path", [path for path in MODULES if not name_of(path).startswith("bench/")], ids=name_of)
def test_time_and_chance_are_passed_in(path: Path) -> None:
    if name_of(path) in CLOCKS:
        return
    for node in ast.walk(tree(path)):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            continue
        used = (node.value.id, node.attr)
        assert used not in BANNED, f"{name_of(path)}:{node.lineno} reads the clock itself: {'.'.join(used)}"
        assert not (used[0] == "random" and used[1] in GLOBAL_CHANCE), f"{name_of(path)}:{node.lineno} uses the global random"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_holds(path: Path) -> None:
    module = tree(path)
    assert not module.body or ast.get_docstring(module), f"{name_of(path)} has no docstring"
