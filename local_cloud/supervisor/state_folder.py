"""The folder in which a local cloud keeps its state: for that alone, and readable by its user only.

Nothing is deleted in a folder without the mark, and in a marked one only what a local cloud writes there.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

MARK = ".local-cloud-state"
SECRETS = "secrets"
"""The folder of secrets, which only the user writes."""
_CONTENT = {
    MARK,
    ".fanout-demo",  # the demo's own mark: what it leaves can be looked at with `fanout local up`
    "control.json",
    "gcloud",
    "local-cloud.json",
    "lock",
    "pubsub",
    "pubsub.log",
    "run",
    "run.log",
    "storage",
    "storage.log",
    "up.log",
    "watchman.log",
}


class NotOurs(ValueError):
    """The folder holds files that no local cloud wrote; the message says what to do."""


def claim(folder: Path) -> None:
    """Make `folder` if needed, mark it and close it to other users. Raises NotOurs when it holds other files, OSError."""
    others = [name for name in _strangers(folder) if name != SECRETS]
    if others and not (folder / MARK).exists():
        raise NotOurs(f"{folder} holds other things ({', '.join(others[:3])}): name a folder that is empty or new with --state-dir")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / MARK).write_text("The state of a local cloud. `fanout local reset` deletes it.\n")


def unusable(folder: Path, error: OSError) -> str:
    """Says why a local cloud cannot use `folder`, and what to do."""
    if error.errno == errno.ENOSPC:
        return f"the disk of {folder} is full: make room, or name a folder on another one with --state-dir"
    return f"the folder {folder} cannot be used ({error.strerror or error}): name one that you may write to with --state-dir"


def check_ours(folder: Path) -> None:
    """Raises NotOurs unless `claim` has made it."""
    if not (folder / MARK).exists():
        raise NotOurs(f"{folder} was not made by `fanout local up`, so nothing was deleted: delete it yourself if you are sure")


def delete(folder: Path) -> list[str]:
    """Delete the state; returns the names of files that no local cloud wrote, which stay. Does nothing without a folder. Raises NotOurs.

    The caller makes sure that no local cloud uses the folder.
    """
    if not folder.exists():
        return []
    check_ours(folder)
    for path in folder.iterdir():
        if not _is_ours(path.name) or path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    left = _strangers(folder)
    # The mark goes last: a deletion that was cut short can be repeated.
    (folder / MARK).unlink()
    if not left:
        folder.rmdir()
    return left


def _strangers(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise NotOurs(f"{folder} is not a folder: name another one with --state-dir")
    return sorted(path.name for path in folder.iterdir() if not _is_ours(path.name))


def _is_ours(name: str) -> bool:
    return name.removesuffix(".new") in _CONTENT  # `.new`: a draft that a kill left
