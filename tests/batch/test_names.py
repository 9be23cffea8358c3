"""No name that is accepted leaves its folder."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch.model import names
from batch.model.errors import NameRefused

parts = st.sampled_from(["..", ".", "", "a", "b.txt", "...", " ", "\\", "\\..", "C:", "~", "\n", "\x00", "ü", "%2e%2e"])
candidates = st.lists(parts, max_size=6).map("/".join) | st.text(max_size=30) | st.lists(parts, max_size=6).map("\\".join)


@given(candidates)
@example("../../etc/passwd")
@example("a/../../b")
@example("/absolute")
@example("a\\..\\..\\b")
def test_an_accepted_name_stays_in_its_folder(name: str) -> None:
    try:
        accepted = names.checked(name)
    except NameRefused:
        return
    assert accepted == name
    path = names.input_object(name)
    assert posixpath.normpath(path) == path
    assert PurePosixPath(path).parts[0] == "input"
    assert ".." not in PureWindowsPath(path).parts
    assert len(path.encode()) <= 1024


@pytest.mark.parametrize("name", ["a.csv", "reports/2026.csv", "ü/日本.txt", "..a", "a..b/c..", "with space", "x" * 900])
def test_ordinary_names_are_accepted(name: str) -> None:
    assert names.checked(name) == name


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "non-empty"),
        (None, "non-empty"),
        (7, "non-empty"),
        ("/a", "slash"),
        ("\\a", "slash"),
        ("a/../b", "part"),
        ("a//b", "part"),
        ("a/", "part"),
        ("a\nb", "control"),
        ("\ud800", "control"),
        ("x" * 901, "longer than 900"),
        ("ü" * 451, "longer than 900"),
    ],
)
def test_a_refusal_says_the_rule_and_the_field(name: object, rule: str) -> None:
    with pytest.raises(NameRefused, match=rule) as raised:
        names.checked(name, "output")
    assert str(raised.value).startswith("output ")
    assert str(raised.value).encode()


def test_a_worker_finds_its_progress_in_its_executions_folder() -> None:
    one, other = names.progress_object("job-abc", 7, 1), names.progress_object("job-abd", 7, 1)
    assert one == f"{names.progress_folder('job-abc')}7-1"
    assert one.split("/")[0] == "workers"
    assert one != other


def test_one_flush_never_overwrites_another() -> None:
    made = {
        names.outcome_object("s", 0.0, names.writer_of(execution, i, r), n)
        for execution in ("e", "f")
        for i in range(3)
        for r in range(2)
        for n in range(3)
    }
    assert len(made) == 36
    assert all(one.startswith(names.outcome_folder("s")) for one in made)
