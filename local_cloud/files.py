"""Writes a small file in one step: a reader, or the next process after a kill, sees the old text or the new one, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """The folder must exist. One writer at a time per path."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    os.replace(draft, path)
