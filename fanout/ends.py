"""How a command ends: 0 when all is well, 1 when something could not be done or a lane is in trouble, 2 for usage and settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from batch.errors import FanoutError, SettingsError

EXIT_FINE = 0
EXIT_TROUBLE = 1
EXIT_USAGE = 2


class Ended(click.ClickException):
    """An error with an exit code of its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = code  # type: ignore[misc]  # click declares it on the class and reads it from the instance


@contextmanager
def explained_errors() -> Iterator[None]:
    """What Fanout can explain ends the command with its own text, one problem a line: with 2 for wrong settings, else with 1."""
    try:
        yield
    except SettingsError as error:
        raise Ended(EXIT_USAGE, "\n".join(error.problems)) from error
    except FanoutError as error:
        raise Ended(EXIT_TROUBLE, str(error)) from error
