"""One line where a library is missing that only an extra of the package installs. `python -m batch` itself needs no extra."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_MISSING = 2
_OURS = frozenset({"batch", "controller", "intake", "fanout", "local_cloud"})
"""A module of these that is missing is a fault of ours, not of the installation."""


@contextmanager
def needs_extra(program: str, extra: str) -> Iterator[None]:
    """Around the imports of `program`. A library that is not installed ends the process with exit code 2, after one line that says what to
    install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        everything = "" if extra == "local" else ", or 'fanout-batch[local]' for all of Fanout"
        sys.stderr.write(f"{program} needs {error.name}, which is not installed: install 'fanout-batch[{extra}]'{everything}\n")
        raise SystemExit(EXIT_MISSING) from None
