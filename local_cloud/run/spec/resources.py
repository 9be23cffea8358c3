"""The rules for a container's `resources.limits`: which CPU counts there are, how much memory, and how the two go together.

From Cloud Run's pages on CPU and memory limits of jobs; containers with a GPU have rules of their own, which are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from local_cloud.run.spec.fields import Problems

CPUS = (1, 2, 4, 6, 8)
MIN_MEMORY = 512 * 2**20
MAX_MEMORY = 32 * 2**30
DEFAULT_CPU = 1
GPU = "nvidia.com/gpu"
_KNOWN = ("cpu", "memory", GPU)
_LEAST_CPU = ((24 * 2**30, 8), (16 * 2**30, 6), (8 * 2**30, 4), (4 * 2**30, 2))
"""(more memory than this, needs at least this many CPUs)"""
_LEAST_MEMORY = {4: 2 * 2**30, 6: 4 * 2**30, 8: 4 * 2**30}
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_QUANTITY = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?(m|k|M|G|Ki|Mi|Gi)?\Z")


def check_limits(limits: Mapping[str, str], path: str, problems: Problems) -> None:
    """Note every broken rule; `path` is that of the limits."""
    for key in limits:
        if key not in _KNOWN:
            problems.add(f"{path}.{key}", limits[key], f"there is no such limit; there are {', '.join(_KNOWN)}")
    if GPU in limits:
        return
    cpu = _cpu(limits, path, problems)
    memory = _memory(limits, path, problems)
    if cpu is None or memory is None:
        return
    least_cpu = next((count for above, count in _LEAST_CPU if memory > above), DEFAULT_CPU)
    if cpu < least_cpu:
        problems.add(f"{path}.memory", limits["memory"], f"needs at least {least_cpu} CPUs, but there are {cpu}")
    if memory < _LEAST_MEMORY.get(cpu, 0):
        problems.add(f"{path}.cpu", limits["cpu"], f"needs at least {_LEAST_MEMORY[cpu] // 2**30}Gi of memory")


def _cpu(limits: Mapping[str, str], path: str, problems: Problems) -> int | None:
    if "cpu" not in limits:
        return DEFAULT_CPU
    found = _amount(limits["cpu"])
    if found not in CPUS:
        problems.add(f"{path}.cpu", limits["cpu"], f"must be one of {', '.join(map(str, CPUS))}")
        return None
    return int(found)


def _memory(limits: Mapping[str, str], path: str, problems: Problems) -> float | None:
    if "memory" not in limits:
        return MIN_MEMORY
    found = _amount(limits["memory"])
    if found is None or not MIN_MEMORY <= found <= MAX_MEMORY:
        problems.add(f"{path}.memory", limits["memory"], "must be 512Mi to 32Gi")
        return None
    return found


def _amount(text: str) -> float | None:
    """The number in a quantity such as `2`, `2000m`, `512Mi`, `1.5G`; None when it is not one."""
    matched = _QUANTITY.match(text)
    if matched is None:
        return None
    number = float(f"{matched.group(1)}.{matched.group(2) or 0}")
    unit = matched.group(3) or ""
    return number / 1000 if unit == "m" else number * _UNITS[unit]
