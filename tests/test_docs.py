"""The docs cannot go stale: what they say of commands, settings, events and annotations is compared with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from batch.model.message import ENVELOPE
from batch.model.outcomes import PRECEDENCE
from fanout.commands import COMMANDS
from tests.reference import EXIT_REASONS, LOCAL_CLOUD, PAGE, with_faults

ROOT = Path(__file__).resolve().parent.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCS = [ROOT / "README.md", CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in DOCS)


def test_the_reference_is_what_the_code_says() -> None:
    # In a process of its own: a command remembers how its help option was called when another test asked first.
    code = "import sys; from tests.reference import page; sys.stdout.reconfigure(encoding='utf-8'); print(page(), end='')"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    assert PAGE.read_text(encoding="utf-8") == shown, "run `make docs`"


def test_the_table_of_faults_is_what_the_code_says() -> None:
    text = LOCAL_CLOUD.read_text(encoding="utf-8")
    assert text == with_faults(text), "run `make docs`"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_shown_in_a_page_that_people_write(name: str) -> None:
    written = "\n".join(path.read_text(encoding="utf-8") for path in DOCS if path != PAGE)
    assert f"fanout {name}" in written, f"`fanout {name}` stands in no page"


def test_every_annotation_of_the_lanes_is_explained() -> None:
    jobs = [job for job in yaml.safe_load_all((ROOT / "jobs.yaml").read_text(encoding="utf-8")) if job]
    names = {name for job in jobs for name in job["metadata"].get("annotations", {}) if name.startswith("fanout/")}
    assert names
    assert not {name for name in names if f"`{name}`" not in TEXT}


def test_the_words_of_formats_are_explained() -> None:
    assert not [word for word in (*ENVELOPE, *PRECEDENCE, *(reason.value for reason in EXIT_REASONS)) if f"`{word}`" not in TEXT]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#][^)]*)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target.split("#")[0]).exists(), f"{path.name} links to {target}, which is not there"


def anchors(path: Path) -> set[str]:
    """The names of a page's headings, as links to them have them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_to_headings_lead_to_one(path: Path) -> None:
    for page, anchor in re.findall(r"\]\((?!http)([^)#]*)#([^)]*)\)", path.read_text(encoding="utf-8")):
        target = path.parent / page if page else path
        assert target.suffix != ".md" or anchor in anchors(target), f"{path.name} links to {page}#{anchor}, which is no heading"


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert not {name for name in re.findall(r"`make ([a-z]+)", TEXT) if name not in targets}


def test_what_contributing_names_is_there() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    folders = "batch|controller|intake|fanout|local_cloud|bench|tests"
    named = set(re.findall(rf"(?:`|pytest |-n 2 )((?:{folders})(?:/[\w./]+)?)\b", text))
    assert len(named) > 20
    assert not sorted(name for name in named if not (ROOT / name).exists())
