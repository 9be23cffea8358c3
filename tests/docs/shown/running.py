"""Runs what is shown, as written, in a shell whose gcloud is the real one at the recording endpoint; says what each command asked for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.recorder import Fault, Recorder, Request
from tests.deploy.recorder.record import Log
from tests.docs.shown.pages import ROOT, Shown
from tests.real_gcloud import Answer, run_group
from tests.support import clean_environment
from tests.warm_gcloud import warm_path

OFFLINE = ("gcloud config", "gcloud version", "gcloud auth configure-docker", "gcloud iam workload-identity-pools create-cred-config")
"""They ask no service anything; nor does a question for help."""
LIMIT_S = 400.0


@dataclass(slots=True)
class Ran:
    """One command of the real gcloud: its words, its exit code, and the requests it formed, as `METHOD api path`."""

    words: str
    code: int = -1
    requests: list[str] = field(default_factory=list)

    @property
    def is_offline(self) -> bool:
        return self.words.startswith(OFFLINE) or "--help" in self.words


class Terminal:
    """`folder` gets a `gcloud` that notes what it is asked; the endpoint notes what comes of it in the same file.

    `stubs` are programs that do less here: their scripts by name.
    """

    def __init__(self, recorder: Recorder, folder: Path, names: Mapping[str, str], stubs: Mapping[str, str]) -> None:
        self.recorder, self.folder, self.names = recorder, folder, dict(names)
        self.checkout = folder / "checkout"
        shutil.copytree(ROOT, self.checkout, ignore=shutil.ignore_patterns(".*", "tests", "bench", "__pycache__"))
        for name in (".dockerignore", ".gcloudignore"):
            shutil.copy(ROOT / name, self.checkout / name)
        (self.checkout / ".venv").symlink_to(ROOT / ".venv")
        self._notes = folder / "notes"
        self._notes.touch()
        recorder.log = _NotedLog(self._notes)
        (folder / "bin").mkdir()
        real = shutil.which("gcloud", path=warm_path(clean_environment()))
        note = f'note() {{ printf "%s\\n" "$1" | tr "\\n" " " >> {self._notes}; echo >> {self._notes}; }}'
        self._script("gcloud", f'{note}\nnote "run gcloud $*"\n{real} "$@"\ncode=$?\nnote "end $code"\nexit $code')
        for name, script in stubs.items():
            self._script(name, script)

    def run(self, shown: Iterable[Shown], typed: str = "") -> tuple[Answer, list[Ran]]:
        """All of them in one shell, one after the other; those that fail are named in the messages. `typed`: a person's answers."""
        lines = ["set -E -o pipefail", "trap 'FAILED=1; echo \"failed: $AT: $BASH_COMMAND\" >&2' ERR"]
        for one in shown:
            lines += [f"AT={one.where}", one.script.strip()]
        lines.append("exit ${FAILED:-0}")
        before = len(self._lines())
        path = f"{self.folder / 'bin'}:{ROOT / '.venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        environment = {**clean_environment(), **self.recorder.environment, **self.names, "PATH": path, "HOME": str(self.folder)}
        del environment["CLOUDSDK_ACTIVE_CONFIG_NAME"]  # `gcloud config set` writes into the default one, of this folder
        lines.insert(0, f"cd {self.checkout}")
        answer = run_group(["bash", "-c", "\n".join(lines)], environment, typed, limit_s=LIMIT_S)
        return answer, list(_ran(self._lines()[before:]))

    def _lines(self) -> list[str]:
        return self._notes.read_text(encoding="utf-8").splitlines()

    def _script(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)


class _NotedLog(Log):
    def __init__(self, notes: Path) -> None:
        super().__init__()
        self._notes = notes

    def add(self, request: Request) -> Fault | None:
        with self._notes.open("a", encoding="utf-8") as file:
            file.write(f"ask {request}\n")
        return super().add(request)


def _ran(lines: Iterable[str]) -> Iterator[Ran]:
    """A command inside another one's `$(…)` ends before that begins; in a pipe only one is gcloud."""
    current: Ran | None = None
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "run":
            current = Ran(rest.strip())
        elif current is not None and kind == "ask":
            current.requests.append(rest)
        elif current is not None and kind == "end":
            current.code = int(rest)
            yield current
            current = None


def filled(script: str, placeholders: Mapping[str, str]) -> str:
    """With a value for each placeholder that stands as a word of its own."""
    words = re.compile(r"(?<![\w$/{-])(?:" + "|".join(map(re.escape, placeholders)) + r")(?![\w-])")
    return words.sub(lambda match: placeholders[match[0]], script)
