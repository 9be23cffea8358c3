"""The demo's material: the Python standard library's own source files, and a table of facts about them.

Every fact in the table is counted from the bytes that are uploaded.
"""

from __future__ import annotations

import csv
import io
import random
import re
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST = 1500
FACTS = "input/facts.csv"
COLUMNS = ("path", "package", "bytes", "lines", "functions", "classes")

_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}
_TESTS = {"test", "tests", "idlelib", "idle_test", "lib2to3"}
_FUNCTION = re.compile(rb"^[ \t]*(?:async[ \t]+)?def[ \t]", re.MULTILINE)
_CLASS = re.compile(rb"^[ \t]*class[ \t]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """`name` is what clients call it: the object is `input/<name>`."""

    name: str
    path: Path


def source_files(count: int, rng: random.Random, root: Path | None = None) -> list[SourceFile]:
    """At most `count` files, by name. The library proper comes first; its tests only fill up what is missing. Of more files than wanted
    a sample is drawn."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    proper: list[Path] = []
    tests: list[Path] = []
    for path in sorted(root.rglob("*.py")):
        parts = set(path.relative_to(root).parts[:-1])
        if not parts & _LEFT_OUT and path.is_file():
            (tests if parts & _TESTS else proper).append(path)
    chosen = sampled(proper, count, rng)
    chosen += sampled(tests, count - len(chosen), rng)
    return [SourceFile(f"stdlib/{path.relative_to(root).as_posix()}", path) for path in sorted(chosen)]


def sampled(paths: Sequence[Path], count: int, rng: random.Random) -> list[Path]:
    return list(paths) if len(paths) <= count else rng.sample(paths, max(0, count))


def facts(files: Iterable[SourceFile]) -> bytes:
    """A CSV with one row a file; `package` is the first folder, or `-` for a module at the top."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for file in files:
        data = file.path.read_bytes()
        parts = file.name.split("/")
        package = parts[1] if len(parts) > 2 else "-"
        writer.writerow([file.name, package, len(data), data.count(b"\n"), len(_FUNCTION.findall(data)), len(_CLASS.findall(data))])
    return text.getvalue().encode()
