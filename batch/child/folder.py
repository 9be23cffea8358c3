"""A child's folder for temporary files: the worker makes it, empties it after each task, and removes it once the child is gone.

On Cloud Run files are memory: what one task leaves would be missing to the next. No link is followed when something is removed.
"""

from __future__ import annotations

import itertools
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress

from batch.events import log

TRIES = 3
"""A download that was under way when its child was killed may open its file while the folder is removed."""
_OWN_OF_PYTHON = "pymp-"
"""Begins the folder that `multiprocessing` makes once in a process, with the sockets of its servers, and goes on using."""
_NOT_FOLLOWED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_numbers = itertools.count()
_live: set[TemporaryFolder] = set()


class TemporaryFolder:
    """Of one child. `path` is empty until it is made."""

    def __init__(self) -> None:
        self.path = ""
        self._kept: frozenset[str] = frozenset()
        self._untold = True

    def make(self) -> dict[str, str]:
        """Returns the variables that lead programs to it, Python's `tempfile` among them. Raises OSError."""
        self.path = tempfile.mkdtemp(prefix="fanout-child-")
        _live.add(self)
        return dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self.path)

    def keep(self) -> None:
        """What is there now stays as long as the child: modules have made it when they were imported, and count on it."""
        with suppress(OSError):
            self._kept = frozenset(os.listdir(self.path))

    def clear(self) -> None:
        """Remove what a task has left. What cannot be removed is told, once."""
        try:
            if not _is_folder(self.path):
                if self not in _live:
                    return  # the worker ends, and has removed it meanwhile
                _remove_other(self.path)
                os.mkdir(self.path, 0o700)
            _empty(self.path, lambda name: name in self._kept or name.startswith(_OWN_OF_PYTHON))
        except OSError as error:
            self._tell(error)

    def remove(self) -> None:
        """The child is gone. Nothing happens the second time."""
        _live.discard(self)
        failure: OSError | None = None
        for _ in range(TRIES):
            try:
                if _is_folder(self.path):
                    _empty(self.path)
                    os.rmdir(self.path)
                else:
                    _remove_other(self.path)
                return
            except FileNotFoundError:
                return  # another thread has removed it at the same time
            except OSError as error:
                failure = error
        if failure is not None:
            self._tell(failure)

    def _tell(self, error: OSError) -> None:
        if self._untold:
            self._untold = False
            log("temporary_files_left", path=self.path, error=f"{type(error).__name__}: {error}")


def remove_all() -> None:
    """The worker ends, and with it the children that it still has."""
    for folder in [*_live]:
        folder.remove()


def _is_folder(path: str) -> bool:
    """Whether it is one itself, that may be looked into; a task may have replaced it, by a link to another one too."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(path, stat.S_IRWXU)
    return stat.S_ISDIR(mode)


def _remove_other(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _empty(path: str, keeps: Callable[[str], bool] = lambda _: False) -> None:
    """Raises the last error after it has removed what it can."""
    folder = os.open(path, _NOT_FOLLOWED)
    failure: OSError | None = None
    try:
        with os.scandir(folder) as entries:
            found = [(one.name, one.is_dir(follow_symlinks=False)) for one in entries]
        for name, is_folder in found:
            if not keeps(name):
                try:
                    _remove(name, folder, is_folder=is_folder)
                except OSError as error:
                    failure = error
    finally:
        os.close(folder)
    if failure is not None:
        raise failure


def _remove(name: str, above: int, *, is_folder: bool) -> None:
    """Folders in folders are moved up first: however deep they lie, two are open at a time, and the worker lacks no files for others."""
    with suppress(FileNotFoundError):
        if not is_folder:
            os.unlink(name, dir_fd=above)
            return
        os.chmod(name, stat.S_IRWXU, dir_fd=above)  # an archive that was unpacked may hold folders that nobody may write to
        left = [name]
        while left:
            emptied = left.pop()
            left += _moved_up(emptied, above)
            os.rmdir(emptied, dir_fd=above)


def _moved_up(name: str, above: int) -> list[str]:
    """Remove the files of a folder, and move its folders beside it; returns the names that they have there."""
    folder = os.open(name, _NOT_FOLLOWED, dir_fd=above)
    try:
        with os.scandir(folder) as entries:
            found = [(one.name, one.is_dir(follow_symlinks=False)) for one in entries]
        moved = []
        for one, is_folder in found:
            if not is_folder:
                os.unlink(one, dir_fd=folder)
                continue
            os.chmod(one, stat.S_IRWXU, dir_fd=folder)
            moved.append(f"fanout-removed-{next(_numbers)}")
            os.rename(one, moved[-1], src_dir_fd=folder, dst_dir_fd=above)
        return moved
    finally:
        os.close(folder)
