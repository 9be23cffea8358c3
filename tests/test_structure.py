"""The rules of the code base that a reader should not have to check: import directions, circles, sizes, names, docstrings, time, chance."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("structure")  # the sources are parsed once

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
ROOMS: dict[str, tuple[str, ...]] = {
    "batch": (
        "model",
        "formats",
        "extras",
        "logs",
        "settings",
        "events",
        "copies",
        "printed",
        "process_state",
        "arguments",
        "files",
        "descendants",
        "memory",
        "prices",
        "serving",
        "services",
        "telemetry",
        "shards",
        "handling",
        "ends",
        "dead",
        "client",
        "built_in",
        "child",
        "worker",
        "handlers",
        "testing",
    ),
    "batch.worker": (
        "attempt",
        "tally",
        "flow",
        "circuit_breaker",
        "watchdog",
        "progress_writer",
        "ready_queue",
        "admission",
        "unstarted",
        "executors",
        "redelivered",
        "dispatch",
        "assembly",
        "pulling",
        "committing",
        "shutdown",
        "life",
    ),
    "controller": ("model", "decide", "observe", "lanes", "act", "tick", "service", "config", "wiring", "simulation"),
    "local_cloud": (
        "addresses",
        "clock",
        "files",
        "processes",
        "gcloud",
        "web",
        "database",
        "calls",
        "faults",
        "monitoring",
        "pubsub",
        "run",
        "storage",
        "supervisor",
        "pytest_plugin",
    ),
    "local_cloud.pubsub": ("messages", "model", "rpc", "store", "rest"),
    "local_cloud.run": ("spec", "model", "runner", "api"),
    "local_cloud.storage": ("model", "api", "outbox"),
}
"""What stands in a package, lowest first: a room may import itself and what stands before it. Modules of the package itself (`__init__`,
`__main__`) may import all."""
DOCUMENTED = ("batch/model", "batch/services", "batch/handling", "batch/client", "controller/decide")
"""Folders whose public functions, classes and methods all have a docstring."""
MAX_FILES_IN_A_FOLDER = 15
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
CLOCKS = {"batch/model/clock.py", "local_cloud/clock.py"}
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def arrows() -> Mapping[str, Collection[str]]:
    """By module: the modules of the code base that it imports anywhere, also for type checkers only."""
    known = {module_name(path): path for path in MODULES}
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        imported: set[str] = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= {one if one in known else node.module for one in full}
        found[name] = {one for one in imported if one in known and one != name}
    return found


def circle_from(start: str) -> list[str]:
    """The shortest way along arrows from a module back to itself; empty when there is none."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for following in sorted(arrows()[way[-1]]):
            if following == start:
                return [*way, start]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []


def test_no_files_import_each_other_in_a_circle() -> None:
    circles = {tuple(sorted(set(way))): way for name in arrows() if (way := circle_from(name))}
    assert not circles, "circles of imports: " + "; ".join(" -> ".join(way) for way in circles.values())


@pytest.mark.parametrize("package", ROOMS)
def test_arrows_between_rooms_go_one_way(package: str) -> None:
    rank = {room: number for number, room in enumerate(ROOMS[package])}

    def room_of(name: str) -> str:
        return name.removeprefix(package + ".").partition(".")[0] if name.startswith(package + ".") else ""

    rooms = {room_of(name) for name in arrows()} - {"", "__main__"}
    assert rooms == set(rank), f"name in ROOMS what stands in {package}, and nothing else"
    wrong = [
        f"{name} imports {other}"
        for name, others in arrows().items()
        for other in others
        if room_of(name) in rank and room_of(other) in rank and rank[room_of(other)] > rank[room_of(name)]
    ]
    assert not wrong, "; ".join(wrong)


def test_a_folder_can_be_looked_over() -> None:
    for folder in sorted({path.parent for path in MODULES if path.relative_to(ROOT).parts[0] != "bench"}):
        names = sorted(path.name for path in folder.glob("*.py"))
        assert len(names) <= MAX_FILES_IN_A_FOLDER, f"{name_of(folder)} has {len(names)} modules, at most {MAX_FILES_IN_A_FOLDER}: {names}"


Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def undocumented(nodes: Iterable[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node.body, f"{node.name}.")


def test_what_is_public_says_what_it_does() -> None:
    documented = [path for path in MODULES if name_of(path).startswith(DOCUMENTED)]
    missing = [f"{name_of(path)}: {name}" for path in documented for name in undocumented(tree(path).body)]
    assert not missing, f"no docstring: {missing}"


def test_the_modules_are_found() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)


def test_imports_go_one_way() -> None:
    def refused(path: Path) -> set[str]:
        package = path.relative_to(ROOT).parts[0]
        return {name for name in imports(tree(path)) if name.split(".")[0] in {*PACKAGES, "tests"} - MAY_IMPORT[package]}

    wrong = [f"{name_of(path)} imports {sorted(names)}" for path in MODULES if (names := refused(path))]
    assert not wrong, f"{wrong}; what may import what: {MAY_IMPORT}"


def test_sizes() -> None:
    long = []
    for path in MODULES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_MODULE_LINES:
            long.append(f"{name_of(path)} has {lines} lines, at most {MAX_MODULE_LINES}")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{name_of(path)}:{node.lineno} {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}")
    assert not long, "; ".join(long)


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    paths = [path for path in MODULES if path.stem not in ("__init__", "__main__")]
    alike = [name_of(path) for path in paths if path.stem in sys.stdlib_module_names]
    assert not alike, f"rename {alike}"


BANNED = {("time", name) for name in ("time", "monotonic", "perf_counter", "sleep", "time_ns", "monotonic_ns")} | {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
}
GLOBAL_CHANCE = {"random", "randint", "choice", "choices", "shuffle", "uniform", "randrange", "sample", "seed", "getrandbits"}


def test_time_and_chance_are_passed_in() -> None:
    wrong = []
    for path in MODULES:
        if name_of(path) in CLOCKS or name_of(path).startswith("bench/"):
            continue
        for node in ast.walk(tree(path)):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
                continue
            used = (node.value.id, node.attr)
            if used in BANNED:
                wrong.append(f"{name_of(path)}:{node.lineno} reads the clock itself: {'.'.join(used)}")
            if used[0] == "random" and used[1] in GLOBAL_CHANCE:
                wrong.append(f"{name_of(path)}:{node.lineno} uses the global random")
    assert not wrong, "; ".join(wrong)


def test_every_module_says_what_it_holds() -> None:
    silent = [name_of(path) for path in MODULES if tree(path).body and not ast.get_docstring(tree(path))]
    assert not silent, f"no docstring: {silent}"
