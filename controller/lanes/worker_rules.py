"""The rules of a process of Fanout in a container: its command, its settings, and the names of these. Pure.

The settings are judged as the process itself reads them, with what Cloud Run and a launch add; what a secret fills in is not judged.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

from batch.dead.draining.settings import DeadLetterSettings
from batch.model.errors import SettingsError
from batch.settings import WorkerSettings, read, worker_settings
from controller.observe.containers import DEAD_LETTERS, Container

LAUNCHED = ("BACKLOG", "DECISION_ID", "SHARE_LIMIT")
"""Settings of one launch: in a job they would bind each execution to it."""
PLATFORM = "CLOUD_RUN_"
MISSPELT = 0.9
"""How alike a name must be to one of ours to be taken for it: users have variables of their own."""
_USUAL = ("WEBHOOK_SECRET", "EVENT_TYPE", "LOGLEVEL")
"""Names near to ours that programs of all kinds have."""
_FILLED = "filled"


@dataclass(frozen=True, slots=True)
class Process:
    """What a container runs: its settings, how they are read, and the words of its command after `python`."""

    settings: type[Any]
    parse: Callable[[Mapping[str, str]], object]
    words: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the settings that a job may have."""
        return tuple(name for one in fields(self.settings) if not (name := one.metadata["env"]).startswith(PLATFORM))


WORKER = Process(WorkerSettings, worker_settings, ("-m", "batch"))
DEAD_LETTERS_WORKER = Process(DeadLetterSettings, lambda env: read(DeadLetterSettings, env), ("-m", "batch", DEAD_LETTERS))


def process_problems(process: Process, container: Container, timeout_s: float, told: Collection[str] = ()) -> Iterator[str]:
    """Everything that is wrong with the command and the settings. `told` are names of settings that another rule speaks of."""
    yield from _command_problems(process, container)
    yield from _name_problems(process, container)
    known = {name: value for name, value in {**container.env, **container.options}.items() if not name.startswith(PLATFORM)}
    required = {one.metadata["env"] for one in fields(process.settings) if one.default is MISSING}
    filled = dict.fromkeys(container.filled & required, _FILLED)
    project = {} if known.get("GOOGLE_CLOUD_PROJECT") else {"GOOGLE_CLOUD_PROJECT": _FILLED}  # the metadata server names it
    try:
        process.parse({**known, **filled, **project, "TASK_TIMEOUT_S": f"{max(timeout_s, 1):g}"})
    except SettingsError as error:
        for problem in error.problems:
            name = re.split(r"\W", problem, maxsplit=1)[0]
            if name not in told:
                yield f"{written(name, container)}{problem.removeprefix(name)}"


def written(name: str, container: Container) -> str:
    """A setting as it stands in a container."""
    return _option(name) if name in container.options else f"env {name}"


def _option(name: str) -> str:
    return f"option --{name.lower().replace('_', '-')}"


def _command_problems(process: Process, container: Container) -> Iterator[str]:
    wanted, found = f"python {' '.join(process.words)}", " ".join(container.command)
    if not container.command:
        if process is not WORKER:
            yield f"its container has no command: give it {wanted}"
        return
    of_the_image = container.arguments == container.command
    if not of_the_image and not container.mentions_worker:
        near = [word for before, word in pairwise(container.command) if before == "-m" and _near(word, ["batch"], 0.6)]
        if container.of_image and not near and process is WORKER:
            return  # a command that nobody sees here gets these words
        other = f"end it with {wanted}, also behind a wrapper of yours, or leave it out where the image's own command runs that"
        hint = f"did you mean -m batch, not -m {near[0]}?" if near else other
        yield f"command {found[:100]!r} runs no worker: {hint}"
        return
    pythons = [word for word, after in pairwise(container.command) if after == "-m"]
    if pythons and "python" not in pythons[0] and _near(pythons[0], ["python", "python3"], 0.8):
        yield f"command {found[:100]!r}: did you mean python, not {pythons[0]}?"
    dead = container.arguments[:1] == (DEAD_LETTERS,) or re.search(rf"-m\s*batch\s+{DEAD_LETTERS}\b", found) is not None
    others = [] if dead else [word for word in container.arguments[:1] if not word.startswith("-")]
    if dead and process is WORKER:
        yield f"command {found[:100]!r} is that of the dead-letters job: a lane's is {wanted}"
    elif others or (process is not WORKER and not dead):
        hint = f"did you mean {DEAD_LETTERS}?" if others and _near(others[0], [DEAD_LETTERS], 0.6) else f"must be {wanted}"
        yield f"command {found[:100]!r}: {hint}"


def _name_problems(process: Process, container: Container) -> Iterator[str]:
    for name in container.options:
        if name.startswith(PLATFORM) or name in (*LAUNCHED, "TASK_TIMEOUT_S"):
            yield f"{_option(name)} of the command is for Cloud Run, or a launch, to set: leave it out"
        elif name not in process.names:
            near = _near(name, process.names, 0.6)
            hint = f"did you mean {_option(near)}?" if near else "leave it out"
            yield f"{_option(name)} of the command is none that python {' '.join(process.words)} has; {hint}"
    own = [part.strip() for part in container.env.get("CHILD_ENVIRONMENT", "").split(",") if part.strip(" *")]
    for name in (*container.env, *sorted(container.filled)):
        if name.startswith(PLATFORM):
            yield f"env {name}: names that begin with {PLATFORM} are Cloud Run's own: leave it out"
        elif name in LAUNCHED and process is WORKER:
            yield f"env {name} is for one launch only, and is set by the controller: leave it out"
        elif (meant := _meant(name, process.names)) and not any(fnmatchcase(name, pattern) for pattern in own):
            hint = " (if it is the handlers' own, name it in CHILD_ENVIRONMENT)" if process is WORKER else ""
            yield f"env {name} is no setting; did you mean {meant}?{hint}"


def _meant(name: str, known: Collection[str]) -> str:
    """The setting that a name misspells; empty for a setting, and for a name of somebody else's. One that has a setting's whole name in
    it, such as MY_BUCKET_NAME, is no misspelling."""
    upper = name.upper()
    if name in (*known, *_USUAL) or (upper not in known and any(one in upper for one in known)):
        return ""
    return _near(upper, known, MISSPELT)


def _near(word: str, known: Collection[str], cutoff: float) -> str:
    return (difflib.get_close_matches(word, known, n=1, cutoff=cutoff) or [""])[0]
