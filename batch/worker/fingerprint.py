"""Whether two errors are the same one: its type and reason, without the numbers and ids that differ from task to task."""

from __future__ import annotations

import re

MAX_CHARS = 200
_VARYING = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]*[0-9][0-9a-fA-F]*")
"""UUIDs, and runs of hexadecimal digits with a decimal one in them: numbers and hashes."""


def fingerprint(error_type: str, reason: str) -> str:
    """`KeyError: no row # in table t`."""
    return f"{error_type}: {_VARYING.sub('#', reason[: 4 * MAX_CHARS])[:MAX_CHARS]}"
