"""The record of a running local cloud, `local-cloud.json` in its state folder: which process runs it and where its services listen.

A record counts only while the process that wrote it runs; its start time tells that process from a later one with the same id.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from local_cloud.addresses import Addresses
from local_cloud.files import write_atomically
from local_cloud.processes import runs, start_mark

FILE = "local-cloud.json"


@dataclass(frozen=True, slots=True)
class Record:
    """`pid` is the supervisor's; `services` the process ids of its services by name."""

    pid: int
    started: str | None
    addresses: Addresses
    services: Mapping[str, int]


def write(state_dir: Path, pid: int, addresses: Addresses, services: Mapping[str, int]) -> None:
    """Replace the record in one step."""
    body = {"pid": pid, "started": start_mark(pid), "addresses": asdict(addresses), "services": dict(services)}
    write_atomically(state_dir / FILE, json.dumps(body, indent=1))


def read(state_dir: Path) -> Record | None:
    """The record of a running local cloud; None when there is none, or its supervisor is gone. Raises ValueError when the file cannot be
    read or is no record."""
    path = state_dir / FILE
    try:
        body = json.loads(path.read_text())
        record = Record(int(body["pid"]), body["started"], Addresses(**body["addresses"]), dict(body["services"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): name another folder with --state-dir") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the record of a local cloud ({error!r}): delete it") from error
    return record if runs(record.pid, record.started) else None


def remove(state_dir: Path) -> None:
    """Remove the record if this process wrote it."""
    path = state_dir / FILE
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
