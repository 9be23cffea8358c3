"""What `--help` of a service says: its settings, which come from the environment alone."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields


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
    if default in ("", (), None):
        return ""
    return f" (default: {','.join(default) if isinstance(default, tuple) else default})"
