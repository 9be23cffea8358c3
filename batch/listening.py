"""The socket that a service listens on, or a clear word on why it cannot."""

from __future__ import annotations

import os
import socket

from batch.errors import SettingsError


def listening(host: str, port: int, *, backlog: int = 128) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises SettingsError: the address is taken, or not ours."""
    try:
        return socket.create_server((host, port), backlog=backlog)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
        raise SettingsError(
            [f"cannot listen on {host}:{port} ({why}): end what listens there, or set PORT to another one; 0 takes a free one"]
        ) from error
