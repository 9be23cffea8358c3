"""deploy/terraform, read as text: every name is one of the provider's, and leads to what exists. Terraform itself need not be there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.deploy.terraform.extract import USED
from tests.deploy.terraform.provider import schema

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "terraform"
FILES = sorted(FOLDER.glob("*.tf"))
OURS = {"count", "depends_on", "for_each", "lifecycle", "provider", "dynamic", "__is_block__", "__comments__", "__inline_comments__"}
Block = Mapping[str, Any]


@cache
def documents() -> list[dict[str, Any]]:
    return [hcl2.loads(path.read_text(encoding="utf-8")) for path in FILES]


def parsed(key: str) -> Iterator[Block]:
    for document in documents():
        yield from document.get(key, ())


def plain(name: str) -> str:
    return name.strip('"')


def resources(key: str = "resource") -> dict[tuple[str, str], Block]:
    return {
        (plain(kind), plain(name)): body
        for one in parsed(key)
        for kind, named in one.items()
        if kind.startswith('"')
        for name, body in named.items()
    }


def names_in(key: str) -> set[str]:
    return {plain(name) for one in parsed(key) for name in one if not name.startswith("__")}


def problems(body: Block, of: Mapping[str, Any], where: str) -> Iterator[str]:
    """What a block has that its schema has not, and the other way round."""
    attributes, blocks = of.get("attributes", {}), of.get("blocks", {})
    inner = [(plain(name), one) for name, one in body.items() if name not in OURS]
    for dynamic in body.get("dynamic", ()):
        inner += [(plain(name), one["content"]) for name, one in dynamic.items() if name.startswith('"')]
    present = {name for name, _ in inner}
    yield from (f"{where}: {name} is required" for name in of.get("required", ()) if name not in present)
    for name, value in inner:
        if name in blocks:
            for one in value:
                yield from problems(one, blocks[name], f"{where}.{name}")
        elif name not in attributes or name == "id":
            yield f"{where}: there is no {name}"


RESOURCES = {**resources(), **resources("data")}


@pytest.mark.parametrize("key", RESOURCES, ids=".".join)
def test_every_name_is_one_of_the_provider_s(key: tuple[str, str]) -> None:
    kinds = schema()
    of = kinds["resources"].get(key[0]) or kinds["data"][key[0]]
    assert list(problems(RESOURCES[key], of, ".".join(key))) == []


def test_a_wrong_name_would_be_found() -> None:
    of = schema()["resources"]["google_pubsub_subscription"]
    wrong = {"name": '"a"', "ack_deadline": 60, "expiration_policy": [{"tll": '""'}]}
    assert list(problems(wrong, of, "s")) == [
        "s: topic is required",
        "s: there is no ack_deadline",
        "s.expiration_policy: ttl is required",
        "s.expiration_policy: there is no tll",
    ]


def test_references_lead_to_what_exists() -> None:
    known = {".".join(key) for key in resources()} | {f"data.{'.'.join(key)}" for key in resources("data")}
    known |= {f"var.{name}" for name in names_in("variable")} | {f"local.{name}" for name in names_in("locals")}
    used = set()
    for path in FILES:
        text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
        used |= set(re.findall(r"(?<![\w.])((?:data\.)?google_\w+\.\w+|(?:var|local)\.\w+)", text))
    assert used - known == set()
    assert {name for name in known if name.startswith(("var.", "local."))} - used == set(), "declared, and used nowhere"


def test_the_extract_has_the_types_that_are_used_and_no_others() -> None:
    assert {kind for kind, _ in resources()} == {f"google_{name}" for name in USED}


def test_lanes_are_left_to_fanout_apply() -> None:
    assert not [kind for kind, _ in resources() if kind.startswith("google_cloud_run") and kind.endswith("_job")]


def test_every_variable_is_described_typed_and_checked() -> None:
    for one in parsed("variable"):
        for name, body in one.items():
            assert {"description", "type", "validation"} <= set(body), name
            assert all(len(plain(check["error_message"])) > 20 for check in body["validation"]), name


def test_nobody_is_everybody() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*FILES, FOLDER.parent / "identity" / "bindings.csv")]
    assert not [word for text in texts for word in ("allUsers", "allAuthenticatedUsers") if word in text]
