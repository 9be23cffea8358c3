"""What the services of the local cloud have recorded, and the check of it after a test."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Iterator

import pytest

from tests.deploy.permissions.table import Recorded, not_granted
from tests.support import RUNNING


def recorded(project: str, urls: Iterable[str] = ()) -> set[Recorded]:
    """The calls of Fanout's processes in a project, but those that a test made itself; `urls` are the HTTP sides of the services to ask, by
    default of all that run."""
    found: set[Recorded] = set()
    for url in urls or [one.http for one in RUNNING if one.process.poll() is None]:
        with urllib.request.urlopen(f"{url}/calls?project={project}", timeout=60) as answer:
            found |= {Recorded(**one) for one in json.load(answer)["calls"] if one["role"] != "test"}
    return found


@pytest.fixture(autouse=True)
def calls_are_granted(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test: every call that a process of Fanout's made is one that the table of deploy/identity/ allows its account."""
    project = request.getfixturevalue("project") if "project" in request.fixturenames else ""
    yield
    problems = not_granted(recorded(project)) if project else []
    assert not problems, "\n".join(problems)
