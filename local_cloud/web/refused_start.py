"""One line for the user when a service of the local cloud cannot start.

Only what a user can mend becomes a line; a bug keeps its traceback.
"""

from __future__ import annotations

import os
import socket
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable


class RefusedStart(Exception):
    """The message says what is in the way, and what to do."""


class PortTaken(RefusedStart, OSError):
    """A service cannot listen on an address."""


class Occupied(RefusedStart, RuntimeError):
    """Another process uses the folder."""


class Damaged(RefusedStart, ValueError):
    """A file of the state is not what a service wrote."""


def told(service: str, main: Callable[[], None]) -> None:
    """Run `main`. What keeps it from starting, or from using its folder, becomes one line on standard error and exit code 1."""
    try:
        main()
    except RefusedStart as error:
        why = str(error)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        return
    sys.stderr.write(f"{service} cannot run: {why}\n")
    raise SystemExit(1)


def port_number(text: str) -> int:
    """A port, 0 to 65535. Raises ArgumentTypeError, which argparse shows."""
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535, 0 for a free one")
    return int(text)


def bound(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet; port 0 takes a free one. Raises PortTaken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Connections of an earlier service in TIME_WAIT do not matter.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        raise PortTaken(f"cannot listen on {host}:{port} ({why}): end what listens there, or take another port; 0 is a free one") from error
    return found
