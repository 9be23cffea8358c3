"""Commands in the product's own texts: fixes, errors, notes, help; worked out from the source, with stand-ins for what a run knows."""

from __future__ import annotations

import ast
import copy
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

from batch.services.calls import Resource
from batch.services.refusals import Where
from fanout.doctor.place import Place
from fanout.doctor.project_checks import LAUNCH, PUBLISH, PUBLISH_DEAD, PULL, READ, WRITE
from tests.docs.shown.pages import COMMAND, ROOT, Shown, in_text

PACKAGES = ("batch", "controller", "intake", "fanout")
UNKNOWN = "\N{WARNING SIGN}"
TEMPLATES = ROOT / "fanout" / "doctor" / "place.py"
"""Its commands are looked at where they are asked for, with what they are asked for."""
FIELDS = {"bucket": "my-project-fanout", "project": "my-project", "name": "input/a.csv"}
"""Of texts that are filled in by `format`."""


class Word(str):
    """A stand-in for a lane, a job, a resource: every attribute that a text asks it for is the same word."""

    def __getattr__(self, name: str) -> Word:
        if name.startswith("_"):
            raise AttributeError(name)
        return self


class Each(tuple[Any, ...]):
    """A stand-in that is each of these, one after the other."""


_TICK = SimpleNamespace(name="fanout-tick", url="https://fanout-controller-x.run.app/tick")
_PLACE = Place(
    "my-project", "us-central1", "my-project-fanout", "my-project", "https://fanout-controller-x.run.app", "https://fanout.example"
)
STAND_INS: Mapping[str, Any] = {
    "account": Word("fanout-scheduler@my-project.iam.gserviceaccount.com"),
    "call": Word("fanout-tick"),
    "dead_letter_topic": "dead-letters",
    "facts": Word("default"),
    "generation": "1712345678901234",
    "home": Word("my-project"),
    "info": Word("EXECUTION"),
    "job": Word("default"),
    "key": "projects/my-project/locations/us-central1/keyRings/fanout/cryptoKeys/bucket",
    "kind": Each(("topic", "subscription")),
    "lane": Word("default"),
    "life": Word("TASK"),
    "name": Word("default"),
    "newest": Word("EXECUTION"),
    "payer": "my-project",
    "place": _PLACE,
    "prefix": 24,
    "project": "my-project",
    "resource": Resource("topic", "my-project", "default"),
    "need": Each((PULL, PUBLISH, READ, PUBLISH_DEAD, WRITE, LAUNCH)),
    "project_checks.update": "gcloud storage buckets update gs://my-project-fanout",
    "rare": [_TICK],
    "refusals.where": Where("read", "my-project-fanout", "my-project", "input/a.csv"),
    "right": [_TICK],
    "self": SimpleNamespace(place=_PLACE),
    "region": "us-central1",
    "role": "roles/pubsub.publisher",
    "subscriptions": ["default", "urgent"],
    "ticking": [_TICK],
    "timeout": "3600",
    "topic": "default",
    "where": "--project=my-project --location=us-central1",
}


def in_product() -> Iterator[Shown]:
    """Raises AssertionError for a text with a command that cannot be worked out: give what it names a stand-in."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if path != TEMPLATES and ("gcloud" in source or "place." in source):
                yield from in_module(path, source)


def in_module(path: Path, source: str) -> Iterator[Shown]:
    """The commands of one module, without those that are the beginning of another one there."""
    name = str(path.relative_to(ROOT))
    module = vars(importlib.import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")))
    return in_tree(name, ast.parse(source), module)


def in_tree(path: str, tree: ast.Module, module: dict[str, Any]) -> Iterator[Shown]:
    """As `in_module`; `module` has what the names of the module mean."""
    both = [_Chosen(branch).visit(copy.deepcopy(tree)) for branch in ("body", "orelse")]
    scopes = [scope for one in both for scope in _scopes(one)]
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    turns = max(len(one) if isinstance(one, Each) and name in named else 1 for name, one in STAND_INS.items())
    texts = sorted({found for scope in scopes for turn in range(turns) for found in _texts(scope, module, turn)})
    for line, text in texts:
        if any(text != other and text in other for _, other in texts):
            continue
        for command in in_text(text):
            assert UNKNOWN not in command, f"{path}:{line}: give a stand-in to what this command names: {command}"
            yield Shown(f"{path}:{line}", command)


class _Chosen(ast.NodeTransformer):
    """A module in which every `X if … else Y` is its X, or is its Y: both may be shown."""

    def __init__(self, branch: str) -> None:
        self.branch = branch

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        chosen: ast.AST = self.visit(getattr(node, self.branch))
        return chosen


def _scopes(tree: ast.Module) -> Iterator[ast.AST]:
    yield tree
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _texts(scope: ast.AST, module: dict[str, Any], turn: int) -> Iterator[tuple[int, str]]:
    """Line and value of each text of a function, or of the module outside its functions, that has a command."""
    nodes = list(_own(scope))
    names = _Names(module, _assigned(nodes), turn)
    hidden = _docstrings(scope)
    for node in nodes:
        if not _is_text(node) or node in hidden:
            continue
        assert isinstance(node, ast.expr)
        text = names.text(node)
        if UNKNOWN in text and (isinstance(node, ast.Call) or f"{UNKNOWN} --" in text):
            text = f"gcloud storage {text}"  # nobody knows what it is, and it may be a command: it is refused below
        if "gcloud " in text:
            yield node.lineno, _filled(text) if isinstance(node, ast.Constant) else text


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
            yield from _own(child)


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).removeprefix("self.").startswith("place.")
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _docstrings(scope: ast.AST) -> list[ast.AST]:
    """Of what is no command of `fanout`: nobody but a reader of the source sees them."""
    owners = [scope, *(node for node in _own(scope) if isinstance(node, ast.ClassDef))]
    shown = isinstance(scope, ast.FunctionDef) and any(
        "command" in ast.unparse(one) or "group" in ast.unparse(one) for one in scope.decorator_list
    )
    bodies = [getattr(owner, "body", []) for owner in owners if not shown]
    return [statement.value for body in bodies for statement in body if isinstance(statement, ast.Expr)]


def _assigned(nodes: list[ast.AST]) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    found |= {one.id: value for one, value in zip(target.elts, node.value.elts, strict=False) if isinstance(one, ast.Name)}
    return found


class _Names(dict[str, Any]):
    """What the names in a text mean: a stand-in, what the function assigns, what the module has; in this order."""

    def __init__(self, module: dict[str, Any], assigned: dict[str, ast.expr], turn: int) -> None:
        super().__init__()
        self.module, self.assigned, self.turn = module, assigned, turn
        self._asked: set[str] = set()

    def text(self, node: ast.expr) -> str:
        """A text with what can be known of it; the rest as UNKNOWN and the expression."""
        return str(self._value(node))

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.JoinedStr):
            return "".join(self.text(one.value if isinstance(one, ast.FormattedValue) else one) for one in node.values)
        code: CodeType = compile(ast.Expression(node), "<a text>", "eval")
        try:
            return eval(code, self.module, self)
        except Exception:  # noqa: BLE001 - whatever an expression raises that needs a run
            return f"{UNKNOWN}{ast.unparse(node)}{UNKNOWN}"

    def __missing__(self, name: str) -> Any:
        value: Any = UNKNOWN
        if name in self.assigned and name not in self._asked:
            self._asked.add(name)
            value = self._value(self.assigned[name])
            self._asked.discard(name)
        if UNKNOWN not in str(value):
            return value
        for key in (f"{self.module['__name__'].rpartition('.')[2]}.{name}", name):
            if key in STAND_INS:
                found = STAND_INS[key]
                return found[self.turn % len(found)] if isinstance(found, Each) else found
        raise KeyError(name)


def _filled(text: str) -> str:
    for field, value in FIELDS.items():
        text = text.replace(f"{{{field}}}", value)
    return text


def has_command(text: str) -> bool:
    """Whether a text names a command that could be run."""
    return COMMAND.search(text) is not None
