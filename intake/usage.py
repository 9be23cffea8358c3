"""`python -m intake --help`: the settings, which come from the environment alone."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields

from intake.config import IntakeSettings


def usage() -> argparse.ArgumentParser:
    """It takes no option but `--help`, and refuses others with exit code 2."""
    rows = [(one.metadata["env"], one.metadata["help"], one.default) for one in fields(IntakeSettings)]
    width = max(len(env) for env, _, _ in rows)
    return argparse.ArgumentParser(
        prog="python -m intake",
        description="Serve the front door: validate tasks that come over HTTP, publish them, answer when the broker has them.",
        epilog="settings, from the environment:\n" + "\n".join(f"  {env:{width}}  {text}{_note(default)}" for env, text, default in rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _note(default: object) -> str:
    if default is MISSING:
        return " (required)"
    if default in ("", ()):
        return ""
    return f" (default: {','.join(default) if isinstance(default, tuple) else default})"
