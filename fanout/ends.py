"""How a command ends: 0 when all is well, 1 when something could not be done or a lane is in trouble, 2 for usage and settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from batch.model.errors import FanoutError, SettingsError

EXIT_FINE = 0
EXIT_TROUBLE = 1
EXIT_USAGE = 2
TRACEBACK = "FANOUT_TRACEBACK"
_CLIENTS = frozenset({"google", "grpc", "requests", "urllib3", "http", "httpx", "httpcore"})
"""Whose errors tell of a service."""


class Ended(click.ClickException):
    """An error with an exit code of its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = code  # type: ignore[misc]  # click declares it on the class and reads it from the instance


@contextmanager
def explained_errors() -> Iterator[None]:
    """What Fanout can explain ends the command with its own text, one problem a line: with 2 for wrong settings, else with 1. What nobody
    foresaw ends it with 1 and one line too; with FANOUT_TRACEBACK set it is raised as it is."""
    try:
        yield
    except SettingsError as error:
        raise Ended(EXIT_USAGE, "\n".join(error.problems)) from error
    except FanoutError as error:
        raise Ended(EXIT_TROUBLE, str(error)) from error
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        raise Ended(EXIT_TROUBLE, unforeseen(error)) from error


def unforeseen(error: Exception) -> str:
    """In one line: of a service, or of the way to it, it is nobody's mistake here; all else is a fault of this program."""
    told = " ".join(str(error).split())[:400]
    what = f"{type(error).__name__}: {told}" if told else type(error).__name__
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS:
        return f"a service could not be reached, or gave no usable answer ({what}): look at credentials, region and network, try again"
    return f"a fault in Fanout itself ({what}): {TRACEBACK}=1 shows its traceback, report it with that"
