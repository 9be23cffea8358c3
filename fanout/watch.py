"""`--watch`: a list again and again until Ctrl-C, in place on a terminal, else block after block. What it asks is opened once."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import click

from batch.model.clock import Clock, iso
from batch.model.errors import FanoutError, SettingsError
from fanout.output import EXIT_FINE, TRACEBACK, one_line, say, tell, unforeseen

EVERY_S = 5.0
T = TypeVar("T")


def watch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command gets `watch` and `every_s`."""
    watch = click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C; then it ends with 0.")
    every = click.option(
        "--every",
        "every_s",
        metavar="SECONDS",
        type=click.FloatRange(min=1),
        default=EVERY_S,
        show_default=True,
        help="How often, with --watch.",
    )
    return watch(every(function))


def watched(look: Callable[[], T], draw: Callable[[T], None], every_s: float, clock: Clock, *, bare: bool = False) -> None:
    """Ends with the first Ctrl-C. A look that fails is told, what was shown before stays, and the next one follows. `bare`: a program
    reads it, so nothing is shown but what `draw` does. Raises SettingsError."""
    never = threading.Event()
    try:
        while True:
            try:
                found = look()
            except SettingsError:
                raise
            except Exception as error:
                if os.environ.get(TRACEBACK) and not isinstance(error, FanoutError):
                    raise
                why = one_line(str(error)) if isinstance(error, FanoutError) else unforeseen(error)
                tell(f"{_time(clock)}: {why}; the next look is in {every_s:g} s", err=True)
            else:
                if not bare:
                    click.clear()  # does nothing in a pipe
                    say(f"{_time(clock)}, every {every_s:g} s, Ctrl-C ends it")
                draw(found)
                say(*([] if bare else [""]))
            clock.wait(never, every_s)
    except KeyboardInterrupt:
        sys.exit(EXIT_FINE)


def _time(clock: Clock) -> str:
    return f"{iso(clock.now())[:19]}Z"
