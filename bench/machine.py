"""The facts of the machine and the versions that a number was measured with.

A number without them is never recorded: nobody could tell whether another one is better.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("google-cloud-pubsub", "google-cloud-storage", "grpcio", "protobuf", "uvicorn")


def facts(packages: Sequence[str] = ()) -> dict[str, str]:
    """Processor, cores, memory, system, Python and the packages that matter, as texts; `packages` are more of them."""
    found = {
        "processor": _line_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": _gigabytes(_line_of("/proc/meminfo", "MemTotal")),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    return found | {name: _version(name) for name in (*PACKAGES, *packages)}


def resident_mb(pid: int) -> float:
    """Memory that a process holds now, in 10**6 bytes. Linux only: raises OSError elsewhere."""
    return int(_line_of(f"/proc/{pid}/status", "VmRSS", required=True).split()[0]) * 1024 / 1e6


def load() -> float:
    """Processes that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2)


def _line_of(path: str, key: str, *, required: bool = False) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        if required:
            raise
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(key)), "")


def _gigabytes(line: str) -> str:
    return f"{int(line.split(maxsplit=1)[0]) * 1024 / 1e9:.0f} GB" if line else "not known"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
