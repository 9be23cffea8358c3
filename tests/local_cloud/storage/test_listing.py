"""Pages of names against a plain search through all of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_cloud.storage.model.errors import InvalidArgument
from local_cloud.storage.model.listing import ListQuery, glob_pattern, page_of

NAMES = st.sets(st.text(alphabet="ab/é\U0010ffff", min_size=1, max_size=6), max_size=25)
PREFIX = st.text(alphabet="ab/\U0010ffff", max_size=2)


def all_pages(names: list[str], query: ListQuery, size: int) -> tuple[list[str], list[str], list[int]]:
    found: list[str] = []
    prefixes: list[str] = []
    sizes: list[int] = []
    token = ""
    while True:
        page = page_of(
            names,
            ListQuery(
                query.prefix, query.delimiter, query.start_offset, query.end_offset, size, token, query.match_glob,
                query.include_trailing_delimiter,
            ),
        )  # fmt: skip
        found += page.names
        prefixes += page.prefixes
        sizes.append(len(page.names) + len(page.prefixes))
        if page.next_token is None:
            return found, prefixes, sizes
        assert page.next_token != token
        token = page.next_token


@settings(derandomize=True, deadline=None, max_examples=300, database=None)
@given(NAMES, PREFIX, st.sampled_from(["", "/", "a"]), PREFIX, PREFIX, st.integers(1, 5), st.booleans())
def test_pages_hold_what_a_plain_search_finds(
    names: set[str], prefix: str, delimiter: str, start: str, end: str, size: int, trailing: bool
) -> None:
    query = ListQuery(prefix, delimiter, start, end, include_trailing_delimiter=trailing)
    fitting = [name for name in sorted(names) if name.startswith(prefix) and name >= start and (not end or name < end)]
    folders: list[str] = []
    items: list[str] = []
    for name in fitting:
        found = name.find(delimiter, len(prefix)) if delimiter else -1
        if found >= 0:
            folders.append(name[: found + len(delimiter)])
        if found < 0 or (trailing and name == folders[-1]):
            items.append(name)
    got_items, got_folders, sizes = all_pages(sorted(names), query, size)
    assert got_items == items
    assert got_folders == list(dict.fromkeys(folders))
    assert all(count <= size + trailing for count in sizes)


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("*.txt", ["a.txt", ".txt"], ["a/b.txt", "a.txt2"]),
        ("a/**", ["a/", "a/b/c"], ["a", "b/a/"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["ax"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("[a-c]1", ["b1"], ["d1", "-1"]),
        ("[!a]1", ["b1"], ["a1"]),
        ("{ab,c*}.x", ["ab.x", "cd.x"], ["b.x", "a,b.x"]),
        ("a.b(", ["a.b("], ["axb("]),
        ("\\*", ["*"], ["a"]),
    ],
)
def test_globs(glob: str, matching: list[str], others: list[str]) -> None:
    pattern = glob_pattern(glob)
    assert [name for name in matching + others if pattern.fullmatch(name)] == matching


BAD = [ListQuery(page_token="x"), ListQuery(page_token="e30="), ListQuery(max_results=-1), ListQuery(match_glob="{a")]


@pytest.mark.parametrize("query", BAD)
def test_bad_questions(query: ListQuery) -> None:
    with pytest.raises(InvalidArgument):
        page_of(["a", "b"], query)


def test_a_page_holds_at_most_a_thousand() -> None:
    names = sorted(map(str, range(1500)))
    assert len(page_of(names, ListQuery()).names) == 1000
    assert len(page_of(names, ListQuery(max_results=5000)).names) == 1000
