"""One container of a job: what its command says that it runs, with which options, and how large it is. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

WORKER_NAME = "worker"
DEAD_LETTERS = "dead-letters"
"""The usual name of the dead-letters job, and the word that makes `python -m batch` its worker."""
DEFAULT_VCPU = 1.0
DEFAULT_MEMORY_GIB = 0.5
"""What Cloud Run takes where a job does not say."""
_MODULE = r"-[bBdEiIOPqRsSuvx]*m"
"""Python's option for a module, alone or behind others: `-m`, `-um`."""
_FLAG = re.compile(_MODULE)
_JOINED = re.compile(f"{_MODULE}batch")
_WORKER = re.compile(rf"(?:^|\s){_MODULE}\s*batch(?![\w.-])")
_SHELL = re.compile(
    rf"(?:^|[;&|(])\s*(?:\w+=\S*\s+)*(?:exec\s+)?(?:\S*/)?python[\d.]*\s+(?:-\S+\s+)*?{_MODULE}\s*batch(?![\w.-])", re.MULTILINE
)
"""A shell's text that begins a worker; one that only speaks of it, such as `pgrep -f 'python -m batch'`, does not."""
_SHELL_ENDS = re.compile(r"[;&|<>\n#`]")
_CPUS = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(m?)")
_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)((?:[KMGT]i|[kMGT])?)")
_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "": 1}


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a job. `command` are its command and arguments, none where the image says them; `of_image`: the image says the
    command, and these are its arguments. `env` holds the plain values, `filled` the names of settings that come from elsewhere, such as a
    secret; `limits` are as they were written, such as `512Mi`."""

    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    filled: frozenset[str] = frozenset()
    limits: Mapping[str, str] = field(default_factory=dict)
    of_image: bool = False

    @property
    def runs_worker(self) -> bool:
        """Whether its command is the worker's for certain."""
        return self._worker_end is not None or any(map(_SHELL.search, self.command))

    @property
    def mentions_worker(self) -> bool:
        """Whether its command may be the worker's, as far as it says one."""
        return _WORKER.search(" ".join(self.command)) is not None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words after `-m batch`, or all where the image says the command and they are its arguments; none where a shell's text has
        them."""
        if self.command and (self.command[0].startswith("--") or self.command[0] == DEAD_LETTERS):
            return self.command
        end = self._worker_end
        return () if end is None else self.command[end:]

    @property
    def options(self) -> Mapping[str, str]:
        """Settings that its command gives as options, which win over its environment, by the names of their variables; of a shell's text
        those that hold no variable."""
        words, found = self.arguments or self._shell_arguments, {}
        for at, word in enumerate(words):
            if word.startswith("--"):
                name, given, value = word[2:].partition("=")
                found[name.upper().replace("-", "_")] = value if given else "".join(words[at + 1 : at + 2])
        return found if self.arguments else {name: value for name, value in found.items() if "$" not in f"{name}{value}"}

    @property
    def _worker_end(self) -> int | None:
        """Where the words after `-m batch` begin."""
        for at, word in enumerate(self.command):
            if _JOINED.fullmatch(word):
                return at + 1
            if _FLAG.fullmatch(word) and self.command[at + 1 : at + 2] == ("batch",):
                return at + 2
        return None

    @property
    def _shell_arguments(self) -> tuple[str, ...]:
        """The words after `-m batch` in a shell's text, up to the end of that command; none where they are not clear."""
        for word in self.command:
            if found := _SHELL.search(word):
                try:
                    return tuple(shlex.split(_SHELL_ENDS.split(word[found.end() :], maxsplit=1)[0]))
                except ValueError:
                    return ()
        return ()

    @property
    def vcpu(self) -> float:
        return _or(cpus, self.limits.get("cpu", ""), DEFAULT_VCPU)

    @property
    def memory_gib(self) -> float:
        return _or(gibibytes, self.limits.get("memory", ""), DEFAULT_MEMORY_GIB)


def worker_at(containers: Sequence[Container]) -> int:
    """The position of the container that drains, see `JobInfo.worker`."""
    named = [at for at, one in enumerate(containers) if one.name == WORKER_NAME]
    certain = [at for at, one in enumerate(containers) if one.runs_worker]
    likely = [at for at, one in enumerate(containers) if one.mentions_worker] if containers[0].command else []
    return (named or certain or likely or [0])[0]


def cpus(text: str) -> float:
    """`2`, `0.5` or `1000m`. Raises ValueError with the rule."""
    matched = _CPUS.fullmatch(text)
    if not matched or not float(matched[1]):
        raise ValueError("a number of CPUs, such as 1 or 1000m")
    return float(matched[1]) / (1000 if matched[2] else 1)


def gibibytes(text: str) -> float:
    """`512Mi`, `2Gi`, `1G` or bytes. Raises ValueError with the rule."""
    matched = _MEMORY.fullmatch(text)
    if not matched or not float(matched[1]):
        raise ValueError("a number with Ki, Mi, Gi, k, M or G, such as 512Mi")
    return float(matched[1]) * _BYTES[matched[2]] / 2**30


def _or(read: Callable[[str], float], text: str, default: float) -> float:
    """What a limit says; the default of Cloud Run where it is absent, or wrong, which the rules tell."""
    try:
        return read(text)
    except ValueError:
        return default
