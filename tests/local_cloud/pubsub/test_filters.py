"""The filter language: what a text means, and that every other text is refused with a position."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_cloud.pubsub.messages.filters import (
    AllOf,
    AnyOf,
    Equals,
    Filter,
    FilterError,
    Has,
    HasPrefix,
    Not,
    matches,
    parse,
)

KEYS = st.sampled_from(["a", "b", "long-key_1", "with space", "-", "ä/ö", 'quo"te', "AND", "hasPrefix", ""])
VALUES = st.sampled_from(["", "x", "xy", "yx", 'q"', "\\", "\n", "é", "\U0001f600"])
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=6)


def written(node: Filter) -> str:
    """A text that `parse` reads as this tree."""
    match node:
        case Has(key):
            return f"attributes:{_key(key)}"
        case Equals(key, value):
            return f"attributes.{_key(key)} = {_quoted(value)}"
        case HasPrefix(key, prefix):
            return f"hasPrefix(attributes.{_key(key)}, {_quoted(prefix)})"
        case Not(term):
            return f"NOT {_operand(term)}"
        case AllOf(terms):
            return " AND ".join(map(_operand, terms))
        case AnyOf(terms):
            return " OR ".join(map(_operand, terms))


def _operand(node: Filter) -> str:
    return f"({written(node)})" if isinstance(node, AllOf | AnyOf) else written(node)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_\-]+", key) else _quoted(key)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'[\x00-\x1f\x7f"\\]', lambda found: f"\\u{ord(found[0]):04x}", text) + '"'


def _texts(filters: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    return filters.filter(lambda node: len(written(node).encode()) <= 256)


FILTERS = _texts(
    st.recursive(
        st.one_of(st.builds(Has, KEYS), st.builds(Equals, KEYS, VALUES), st.builds(HasPrefix, KEYS, VALUES)),
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(AllOf, st.lists(inner, min_size=2, max_size=3).map(tuple)),
            st.builds(AnyOf, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=6,
    )
)


def naive(node: Filter, attributes: dict[str, str]) -> bool:
    """The same by another way: sets of pairs."""
    pairs = set(attributes.items())
    if isinstance(node, Has):
        return any(key == node.key for key, _value in pairs)
    if isinstance(node, Equals):
        return (node.key, node.value) in pairs
    if isinstance(node, HasPrefix):
        return any(key == node.key and value[: len(node.prefix)] == node.prefix for key, value in pairs)
    if isinstance(node, Not):
        return naive(node.term, attributes) is False
    found = [naive(term, attributes) for term in node.terms]
    return min(found) if isinstance(node, AllOf) else max(found)


@given(FILTERS)
def test_a_tree_survives_being_written_and_read(node: Filter) -> None:
    assert parse(written(node)) == node


@given(FILTERS, ATTRIBUTES)
def test_a_filter_means_what_the_naive_model_says(node: Filter, attributes: dict[str, str]) -> None:
    assert matches(node, attributes) == naive(node, attributes)


@given(st.text(alphabet='attribues.:=!"()-, ANDORTx\\hPf', max_size=40))
def test_any_other_text_is_refused_with_a_position_inside_of_it(text: str) -> None:
    position = 1
    try:
        node = parse(text)
    except FilterError as error:
        position = error.position
    else:
        assert parse(written(node)) == node
    assert 1 <= position <= len(text) + 1


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("attributes:domain", Has("domain")),
        ('attributes:"iana.org/language_tag"', Has("iana.org/language_tag")),
        ('attributes.domain="com"', Equals("domain", "com")),
        ('attributes . domain  !=\t"com"', Not(Equals("domain", "com"))),
        ('attributes.routing-key_2 = "a.b"', Equals("routing-key_2", "a.b")),
        ('hasPrefix( attributes.domain , "co" )', HasPrefix("domain", "co")),
        ('hasPrefix(attributes."two words","co")', HasPrefix("two words", "co")),
        ("NOT attributes:a", Not(Has("a"))),
        ("-attributes:a", Not(Has("a"))),
        ("NOT(attributes:a)", Not(Has("a"))),
        ("NOT -attributes:a", Not(Not(Has("a")))),
        ("((attributes:a))", Has("a")),
        ("attributes:a AND -attributes:b AND NOT attributes:c", AllOf((Has("a"), Not(Has("b")), Not(Has("c"))))),
        ("attributes:a OR attributes:b", AnyOf((Has("a"), Has("b")))),
        ("attributes:a AND (attributes:b OR attributes:c)", AllOf((Has("a"), AnyOf((Has("b"), Has("c")))))),
        ("(attributes:a AND attributes:b)OR(attributes:c)", AnyOf((AllOf((Has("a"), Has("b"))), Has("c")))),
        ("attributes:AND AND attributes:OR", AllOf((Has("AND"), Has("OR")))),
        ('attributes.a = "\\"\\\\\\n\\x41\\101\\u00e9\\U0001F600"', Equals("a", '"\\\nAAé\U0001f600')),
        ('attributes.a = ""', Equals("a", "")),
    ],
)
def test_texts_and_what_they_mean(text: str, node: Filter) -> None:
    assert parse(text) == node


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 1, "expected `attributes`"),
        ("data:x", 1, "expected `attributes`"),
        ("attribute:x", 1, "expected `attributes`"),
        ("attributes", 11, "expected `:` or `.`"),
        ("attributes:", 12, "expected a key"),
        ("attributes.a", 13, "expected `=`"),
        ("attributes.a = com", 16, "double quotes"),
        ("attributes.a = 'com'", 16, "double quotes"),
        ('attributes.a == "com"', 15, "double quotes"),
        ('attributes.a > "com"', 14, "expected `=`"),
        ('attributes.a = "com', 20, "no end"),
        ('attributes.a = "\\q"', 17, "unknown escape"),
        ('attributes.a = "\\ud800"', 17, "no character"),
        ("attributes:a attributes:b", 14, "expected AND, OR"),
        ("attributes:a AND", 17, "expected `attributes`"),
        ("attributes:a and attributes:b", 14, "expected AND, OR"),
        ("attributes:a AND attributes:b OR attributes:c", 31, "parentheses"),
        ("(attributes:a", 14, "expected AND, OR or `)`"),
        ("attributes:a)", 13, "expected AND, OR"),
        ('hasSuffix(attributes.a, "x")', 1, "expected `attributes`"),
        ('hasPrefix(attributes:a, "x")', 21, "expected `.`"),
        ("hasPrefix(attributes.a)", 23, "expected `,`"),
        ("(" * 200, 62, "nested"),
        ("-" * 200 + "attributes:a", 213, "negations"),
    ],
)
def test_what_is_refused(text: str, position: int, problem: str) -> None:
    with pytest.raises(FilterError, match=problem.replace(")", r"\)").replace("(", r"\(")) as refusal:
        parse(text)
    assert refusal.value.position == position


def test_256_bytes_are_the_limit_not_256_characters() -> None:
    fits = 'attributes.a = "' + "é" * 119 + '"'
    assert len(fits.encode()) == 255
    assert parse(fits)
    with pytest.raises(FilterError, match="257 bytes"):
        parse(fits[:-1] + 'é"')
