"""Commands in pages, in comments of scripts and manifests, and in data files. Pure but for reading files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
GENERATED = ("docs/reference.md", "docs/permissions.md")
"""Written by a program from texts that are looked at themselves."""
SHELL = ("", "sh", "bash", "shell", "console")
COMMAND = re.compile(
    r"\bgcloud (?:alpha |beta )?(?:artifacts|auth|billing|builds|components|compute|config|iam|kms|logging|monitoring|org-policies"
    r"|projects|pubsub|run|scheduler|secrets|services|storage)\b"
)
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_START = re.compile(r"^\s*(?:(?:fanout|for|printf)\b|\w+=).*\bgcloud |\bgcloud ")
"""Where a command begins in a line that has one: it may be piped to, assigned, or repeated."""
_COMMENT = re.compile(r"^\s*(?:#|//) ?(.*)$|^[^#'\"]*\s# (.*)$")


@dataclass(frozen=True, slots=True)
class Shown:
    """`script` is what a shell is given: the block as it stands, or one command. `where` is `file:line`."""

    where: str
    script: str
    block: bool = False

    @property
    def page(self) -> str:
        """The file."""
        return self.where.rpartition(":")[0]


def in_markdown(name: str, text: str) -> Iterator[Shown]:
    """Blocks of shell and code spans, in the order of the page. Blocks without a gcloud command too: they may set what later ones use."""
    found = [
        (match.start(), Shown(_at(name, text, match.start()), _dedented(match[3], match[1]), block=True))
        for match in _FENCE.finditer(text)
        if match[2] in SHELL
    ]
    prose = _without_blocks(text)
    found += [
        (match.start(), Shown(_at(name, text, match.start()), command))
        for match in _SPAN.finditer(prose)
        for command in _commands(match[2])
    ]
    yield from (shown for _, shown in sorted(found, key=lambda pair: pair[0]))


def unquoted(text: str) -> list[str]:
    """Commands in a page's prose that are no code: nobody can see where they end."""
    prose = _SPAN.sub(lambda match: " " * len(match[0]), _without_blocks(text))
    return [prose[match.start() : match.start() + 60] for match in COMMAND.finditer(prose)]


def in_comments(name: str, text: str) -> Iterator[Shown]:
    """Of a script, a manifest or a file of variables: what stands in backticks, else from the command to the end of the line."""
    said: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        match = _COMMENT.match(line)
        if match:
            said.append(match[1] or match[2] or "")
        elif said:
            yield from (Shown(f"{name}:{number - len(said)}", command) for command in in_text("\n".join(said)))
            said = []


def in_strings(name: str, text: str) -> Iterator[Shown]:
    """Of Terraform: the messages for values that are refused."""
    for match in re.finditer(r'"((?:[^"\\\n]|\\.)*)"', text):
        yield from (Shown(_at(name, text, match.start()), command) for command in in_text(match[1]))


def in_text(text: str) -> Iterator[str]:
    """The commands of a text that is shown: those in backticks, and lines that are one as a whole."""
    for match in _SPAN.finditer(text):
        yield from _commands(match[2])
    for line in _SPAN.sub("", text).splitlines():
        start = _START.search(line)
        if start and COMMAND.search(line):
            yield re.sub(r"\s+# .*$", "", line[start.start() :]).strip()


def in_data(name: str, value: Any) -> Iterator[Shown]:
    """Of a JSON or YAML document: texts that people get to see, such as what an alert says, and the scripts of a workflow's steps."""
    if isinstance(value, dict):
        run = value.get("run")
        if isinstance(run, str) and COMMAND.search(run):
            yield Shown(f"{name}:0", run, block=True)
        for key, one in value.items():
            yield from in_data(name, one) if not (key == "run" and isinstance(one, str)) else ()
    elif isinstance(value, list):
        for one in value:
            yield from in_data(name, one)
    elif isinstance(value, str) and COMMAND.search(value):
        yield from in_markdown(name, value)


def files() -> Iterator[tuple[str, str]]:
    """Name and text of each file outside the product's code that may show a command."""
    kept = [*ROOT.glob("*.md"), ROOT / "jobs.yaml", ROOT / "Dockerfile", *(ROOT / "docs").rglob("*"), *(ROOT / "deploy").rglob("*")]
    for path in sorted(set(kept)):
        name = str(path.relative_to(ROOT))
        if path.is_file() and name not in GENERATED and path.suffix not in (".png", ".svg", ".csv", ".pyc"):
            yield name, path.read_text(encoding="utf-8")


def in_files() -> Iterator[Shown]:
    """All of them; pages with all their blocks."""
    for name, text in files():
        suffix = Path(name).suffix
        if suffix == ".md":
            yield from in_markdown(name, text)
        else:
            yield from in_comments(name, text)
        if suffix == ".tf":
            yield from in_strings(name, text)
        if suffix == ".json":
            yield from in_data(name, json.loads(re.sub(r"\$\{\w+\}", "0", text)))
        elif suffix in (".yaml", ".yml"):
            for document in yaml.safe_load_all(text):
                yield from in_data(name, document)


def _commands(span: str) -> Iterator[str]:
    text = " ".join(span.split())
    if COMMAND.search(text):
        yield text.strip()


def _without_blocks(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```", lambda match: re.sub(r"[^\n]", " ", match[0]), text, flags=re.MULTILINE | re.DOTALL)


def _dedented(block: str, indent: str) -> str:
    return "\n".join(line.removeprefix(indent) for line in block.splitlines()) + "\n"


def _at(name: str, text: str, position: int) -> str:
    return f"{name}:{text.count(chr(10), 0, position) + 1}"
