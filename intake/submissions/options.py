"""What a request says about its submission, in the query of its address. All that is wrong is told at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from batch.client.strict import Strict
from batch.client.submission import check_ends
from batch.client.submit import Check
from batch.ends.options import LANE, NO_ENDS, Ends, ends_of
from batch.model.errors import MessageRefused, NameRefused
from batch.model.message import short
from batch.model.names import checked, input_object
from intake.problems import RequestRefused, Wrong

ACCEPT = ("all", "good")
_ENDS = ("on_complete", "on_failure", "tolerate")


@dataclass(frozen=True, slots=True)
class Options:
    """`accept_good`: wrong tasks do not keep the others from being submitted. `source` is the name of an object, empty: the body."""

    lane: str
    accept_good: bool = False
    ends: Ends = NO_ENDS
    stays_open: bool = False
    source: str = ""
    text: str = ""
    """All of them, as what a repeat under the same key must say again."""


class Reader:
    """Reads the query of one request. `allowed` are the names that it may have."""

    def __init__(self, query: Sequence[tuple[str, str]], allowed: Sequence[str]) -> None:
        self._query = dict(query)
        self.problems: dict[str, str] = {}
        for name in self._query:
            if name not in allowed:
                self.problems[name[:80]] = f"is unknown: there are {', '.join(allowed)}"
            elif [one for one, _ in query].count(name) > 1:
                self.problems[name] = "is given twice"

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        """Its value; the first of those allowed if it is left out."""
        value = self._query.get(name, allowed[0])
        if value not in allowed:
            self.problems[name] = f"must be {' or '.join(allowed)}, got {short(value)}"
        return value

    def source(self, bucket_name: str) -> str:
        """The name of an object below input/, which clients may read; empty if none is named."""
        value = self._query.get("source", "")
        root = f"gs://{bucket_name}/{input_object('')}"
        if not value:
            return ""
        try:
            if not value.startswith(root):
                raise NameRefused(f"must begin with {root}, got {short(value)}")
            return input_object(checked(value.removeprefix(root), "name"))
        except NameRefused as error:
            self.problems["source"] = str(error)
            return ""

    def ends(self, lane: str, check: Check, lanes: Sequence[str]) -> Ends:
        """What is to happen at the end; the tasks can travel, and go to one of `lanes`."""
        given: dict[str, Any] = {}
        for name in _ENDS:
            try:
                if name in self._query:
                    given[name] = Strict().whole(self._query[name].encode("utf-8", "surrogatepass"))
            except (ValueError, RecursionError) as error:
                self.problems[name] = f"is not JSON: {error}"
        try:
            ends = ends_of(given)
            for name, task in given.items():
                if name != "tolerate" and task and task.get(LANE, lane) not in lanes:
                    raise MessageRefused("invalid", f"must name one of the lanes {', '.join(lanes)}", (f"{name}.{LANE}",))
            check_ends(ends, lane, check)
            return ends
        except MessageRefused as error:
            for name in error.fields or _ENDS[:1]:
                self.problems[name] = str(error)
            return NO_ENDS

    def text(self) -> str:
        """All options, the same however they are ordered."""
        return json.dumps({name: value for name, value in sorted(self._query.items()) if name != LANE})

    def refuse(self) -> None:
        """Raises RequestRefused with all problems, if there are any."""
        if self.problems:
            wrong = [Wrong(pointer=f"?{name.replace('.', '/')}", detail=problem) for name, problem in self.problems.items()]
            raise RequestRefused(422, "; ".join(f"{name} {problem}" for name, problem in self.problems.items()), wrong=wrong)


def read_options(
    query: Sequence[tuple[str, str]], lane: str, bucket_name: str, check: Callable[..., None], lanes: Sequence[str]
) -> Options:
    """Of a new submission. Raises RequestRefused."""
    reader = Reader(query, ("lane", "accept", "on_complete", "on_failure", "tolerate", "open", "source"))
    options = Options(
        lane,
        reader.one_of("accept", ACCEPT) == "good",
        reader.ends(lane, check, lanes),
        reader.one_of("open", ("false", "true")) == "true",
        reader.source(bucket_name),
        reader.text(),
    )
    reader.refuse()
    return options


def read_part_options(query: Sequence[tuple[str, str]], lane: str, bucket_name: str) -> Options:
    """Of a part of an open submission. Raises RequestRefused."""
    reader = Reader(query, ("accept", "source"))
    accept_good, source = reader.one_of("accept", ACCEPT) == "good", reader.source(bucket_name)
    reader.refuse()
    return Options(lane, accept_good, stays_open=True, source=source, text=reader.text())
