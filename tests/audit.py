"""`make audit`: known vulnerabilities of what the image carries, by pip-audit; what could not be looked up is not called safe.

pip-audit itself ends well, with "No known vulnerabilities found", where its service answered for none of the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / ".venv/tools/bin/pip-audit"
CARRIED = tuple(ROOT / "requirements" / name for name in ("image.txt", "data.txt", "telemetry.txt"))
LIMIT_S = 600
EXIT_AUDITED, EXIT_VULNERABLE, EXIT_NOT_AUDITED = 0, 1, 2


def command(files: Sequence[Path]) -> list[str]:
    """Asks about each pinned version, and resolves and installs nothing."""
    given = [word for one in files for word in ("--requirement", str(one))]
    return [str(TOOL), *given, "--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json"]


def pinned(text: str) -> set[str]:
    """The names of a lock file."""
    return {line.split("==")[0].strip().lower() for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))}


def problems(report: Mapping[str, Any], wanted: set[str]) -> tuple[list[str], list[str]]:
    """What is vulnerable, and what was not audited: skipped by the tool, or missing in its report."""
    found = {str(one["name"]).lower(): one for one in report["dependencies"]}
    vulnerable = [line for one in found.values() for line in _vulnerable(one)]
    skipped = [f"{name}: {one['skip_reason']}" for name, one in found.items() if "skip_reason" in one]
    return vulnerable, skipped + [f"{name}: the report does not name it" for name in sorted(wanted - found.keys())]


def _vulnerable(one: Mapping[str, Any]) -> Iterator[str]:
    for known in one.get("vulns", ()):
        fixed = ", ".join(known.get("fix_versions", ())) or "no version yet"
        yield f"{one['name']} {one['version']}: {known['id']}, fixed in {fixed}"


def main() -> int:
    """The exit code: 0 if every package was audited and is fine, 1 with a vulnerability, 2 where it cannot be said."""
    done = subprocess.run(command(CARRIED), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    wanted = set().union(*(pinned(one.read_text(encoding="utf-8")) for one in CARRIED))
    try:
        vulnerable, unaudited = problems(json.loads(done.stdout), wanted)
    except (ValueError, KeyError, TypeError):
        print(f"not audited: pip-audit gave no report:\n{done.stderr[-2000:]}", file=sys.stderr)
        return EXIT_NOT_AUDITED
    for line in vulnerable:
        print(f"vulnerable: {line}")
    if unaudited:
        print(f"not audited: {len(unaudited)} of {len(wanted)} packages, the first: {unaudited[0]}", file=sys.stderr)
        print("that is not to say that they are safe: run `make audit` where the service of pip-audit can be reached", file=sys.stderr)
    elif not vulnerable:
        print(f"all of {len(wanted)} packages were audited, and none has a known vulnerability")
    return EXIT_VULNERABLE if vulnerable else EXIT_NOT_AUDITED if unaudited else EXIT_AUDITED


if __name__ == "__main__":
    sys.exit(main())
