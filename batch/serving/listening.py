"""What the entry point of a service needs before it serves: the text of `--help`, and a listening socket or a clear word on why not."""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import MISSING, fields

from batch.model.errors import SettingsError
from batch.settings import default_text


def listening(host: str, port: int, *, backlog: int = 128) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises SettingsError: the address is taken, or not ours."""
    try:
        return socket.create_server((host, port), backlog=backlog)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
        raise SettingsError(
            [f"cannot listen on {host}:{port} ({why}): end what listens there, or set PORT to another one; 0 takes a free one"]
        ) from error


def usage(program: str, description: str, settings: type) -> argparse.ArgumentParser:
    """For a settings class of `batch.settings`. The service takes no option but `--help`, and refuses others with exit code 2."""
    rows = [(one.metadata["env"], one.metadata["help"], one.default) for one in fields(settings)]
    width = max(len(env) for env, _, _ in rows)
    return argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="settings, from the environment:\n" + "\n".join(f"  {env:{width}}  {text}{_note(default)}" for env, text, default in rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _note(default: object) -> str:
    if default is MISSING:
        return " (required)"
    return f" (default: {shown})" if (shown := default_text(default)) else ""
