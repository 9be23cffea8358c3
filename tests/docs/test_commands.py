"""None of the gcloud commands that Fanout shows was not run: each is, as written, by the real gcloud, which says whether it takes the flags.

What the local cloud serves is done there; the recording endpoint keeps the rest. Neither checks permissions, quotas, or what Google says.
"""

from __future__ import annotations

import ast
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from local_cloud.addresses import Addresses
from tests.deploy.recorder import Recorder
from tests.docs.shown.pages import COMMAND, Shown, files, in_comments, in_data, in_files, in_markdown, in_text, unquoted
from tests.docs.shown.product import in_product, in_tree
from tests.docs.shown.running import Ran, Terminal, filled
from tests.real_gcloud import find_gcloud
from tests.support import Service

WALKED = ("README.md", "docs/operations.md")
"""Pages whose blocks are all run, in their order; of others the blocks with a gcloud command are."""
LAPTOP = "## On Google Cloud"
"""README's blocks before this heading run in test_readme.py."""
SKIPPED: Mapping[str, str] = {
    "gcloud auth application-default login": "opens a browser and waits for a person",
    "gcloud auth print-identity-token": "asks Google who is logged in, and nobody is",
}
"""Beginnings of commands that are not run, and why. That they exist is looked up in gcloud's help, which is run."""
MENTIONS: Mapping[str, str] = {
    "gcloud pubsub": "the group of commands",
    "gcloud run": "the group of commands",
    "gcloud run jobs": "the group of commands",
    "gcloud run jobs logs read": "what the local cloud does not serve",
    "gcloud run jobs replace": "what takes a manifest",
    "gcloud run jobs replace -": "the same, from a pipe",
    "gcloud storage": "the group of commands",
    "gcloud storage buckets notifications create --skip-topic-setup": "an option of the command",
}
"""Commands that a text speaks about, and shows nothing to run: their help is asked for."""
STUBS: Mapping[str, str] = {
    "docker": "no image is built here: see tests/deploy/image",
    "make": "the same",
}
PLACEHOLDERS: Mapping[str, str] = {
    "ACCOUNT": "000000-000000-000000",
    "EMAIL": "fanout-controller@my-project.iam.gserviceaccount.com",
    "ID": "0123456789abcdef",
    "KEY": "projects/my-project/locations/us-central1/keyRings/fanout/cryptoKeys/bucket",
    "LANE": "default",
    "PROJECT": "my-project",
    "TASK": "0123456789abcdef-s-20260101-000000-00000000",
    "TOPIC": "default",
}
"""What a reader puts in himself; EXECUTION and NOTIFICATION are found when the tests run."""
NAMES = {"MEMBER": f"serviceAccount:{PLACEHOLDERS['EMAIL']}", "SCHEDULER_ACCOUNT": "fanout-scheduler@my-project.iam.gserviceaccount.com"}
NAMES |= {"REGION": "us-central1", "GOOGLE_CLOUD_PROJECT": "my-project", "BUCKET_NAME": "my-project-fanout"}


# --- what is found


def test_the_finder_finds_a_command_of_each_form() -> None:
    page = "```sh\nA=1\ngcloud run jobs list\n```\n\nSee `gcloud storage ls gs://a\nb`, ``gcloud config set core/x `y` ``.\n\n```python\ngcloud = 1\n```\n"
    assert [one.script for one in in_markdown("p.md", page)] == [
        "A=1\ngcloud run jobs list\n",
        "gcloud storage ls gs://a b",
        "gcloud config set core/x `y`",
    ]
    assert [one.where for one in in_markdown("p.md", page)] == ["p.md:1", "p.md:6", "p.md:7"]
    comments = "# gcloud run jobs list  # all\nx: 1  # or `gcloud pubsub topics list`\nimage: gcloud\n#   fanout render a | gcloud run jobs replace -\n"
    assert [one.script for one in in_comments("c", comments)] == [
        "gcloud run jobs list",
        "gcloud pubsub topics list",
        "fanout render a | gcloud run jobs replace -",
    ]
    workflow = {"steps": [{"run": "gcloud run services list\n"}], "documentation": {"content": "Look with `gcloud logging read x`"}}
    assert [one.script for one in in_data("w", workflow)] == ["gcloud run services list\n", "gcloud logging read x"]
    assert list(in_text("gcloud writes its own; ask gcloud for help")) == []
    assert unquoted("run gcloud run jobs list now; `gcloud run jobs list`") == ["gcloud run jobs list now;                       "]


def test_the_finder_works_out_what_the_product_says() -> None:
    code = """
def fix(lane, other):
    update = f"gcloud pubsub topics update {lane.topic}"
    yield f"{update} --clear-labels"
    yield f"so `{update} {'--a' if other else '--b'}`, {other!r}"
    yield place.create_topic("new")
"""
    assert [one.script for one in in_tree("m.py", ast.parse(code), {"__name__": "m"})] == [
        "gcloud pubsub topics update default --clear-labels",
        "gcloud pubsub topics update default --a",
        "gcloud pubsub topics update default --b",
        "gcloud pubsub topics create new --project=my-project",
    ]
    for unknown in ('def f(what): return f"gcloud run jobs update x --{what}"', "def f(what): return place.update_job(what, '--a')"):
        with pytest.raises(AssertionError, match="stand-in"):
            list(in_tree("m.py", ast.parse(unknown), {"__name__": "m"}))


def test_a_command_in_prose_stands_in_backticks() -> None:
    assert {name: found for name, text in files() if name.endswith(".md") and (found := unquoted(text))} == {}


def test_no_command_is_left_out_without_a_reason() -> None:
    shown = [one.script for one in [*in_files(), *in_product()] if not one.block]
    assert {name for name in MENTIONS if name not in shown} == set(), "nobody speaks about these any more"
    scripts = [one.script for one in [*in_files(), *in_product()]]
    assert {name for name in SKIPPED if not any(name in script for script in scripts)} == set()
    assert len(shown) > 60


# --- what is run


@pytest.fixture(scope="module")
def terminal(
    local_pubsub: Service, local_storage: Service, local_run: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    find_gcloud()
    folder = tmp_path_factory.mktemp("shown")
    addresses = Addresses(local_pubsub.grpc, local_pubsub.http, local_storage.http, local_run.http)
    with Recorder(addresses, "my-project", folder / "gcloud") as recorder:
        yield Terminal(recorder, folder, NAMES, STUBS)


def as_run(shown: Shown) -> Shown:
    """What the shell is given for it."""
    script = shown.script
    for start in (*SKIPPED, *MENTIONS):
        whole = script == start if start in MENTIONS else start in script
        if whole and not shown.block:
            return Shown(shown.where, f"{start.removesuffix(' -').partition(' --')[0]} --help")
        if start in SKIPPED:
            script = re.sub(rf"{re.escape(start)}[^\n)]*", f"{start} --help > /dev/null", script)
    return Shown(shown.where, script if shown.block else filled(script, PLACEHOLDERS), shown.block)


def check(terminal: Terminal, shown: list[Shown]) -> None:
    answer, ran = terminal.run([as_run(one) for one in shown])
    assert answer.code == 0, answer.messages[-9000:]
    silent = [one.words for one in ran if not one.requests and not one.is_offline]
    assert not silent, "these formed no request"
    assert [one.words for one in ran if one.code] == []
    assert len(ran) >= sum(len(COMMAND.findall(re.sub(r"(?m)^\s*#.*$", "", one.script))) for one in shown)
    assert terminal.recorder.refused == []


PREPARE = """
gcloud services enable run.googleapis.com pubsub.googleapis.com cloudscheduler.googleapis.com artifactregistry.googleapis.com
for NAME in intake controller scheduler worker dead-letters; do gcloud iam service-accounts create fanout-$NAME; done
fanout apply --create-missing --yes --image us-central1-docker.pkg.dev/my-project/fanout/fanout
gcloud run deploy fanout-controller --image=x --region=us-central1 --no-allow-unauthenticated
gcloud run deploy fanout-intake --image=x --region=us-central1 --no-allow-unauthenticated
gcloud scheduler jobs create http fanout-tick --schedule='* * * * *' --uri=https://x.run.app/tick --location=us-central1
gcloud scheduler jobs create http fanout-dead-letters --schedule='7 * * * *' --uri=https://x.run.app/tick --location=us-central1
printf 'a b' | gcloud secrets create fanout-api-keys --data-file=-
gcloud iam service-accounts create fanout-worker
gcloud run jobs execute dead-letters --region=us-central1 --async
gcloud storage buckets create gs://uploads gs://default
gcloud pubsub topics create uploads
gcloud artifacts repositories create fanout --repository-format=docker --location=us-central1
gcloud kms keyrings create fanout --location=us-central1
gcloud kms keys create bucket --keyring=fanout --location=us-central1 --purpose=encryption
"""


@pytest.fixture(scope="module")
def deployed(terminal: Terminal) -> Terminal:
    answer, _ = terminal.run([Shown("prepare:1", PREPARE, block=True)])
    assert answer.code == 0, answer.messages
    return terminal


@pytest.mark.slow
@pytest.mark.real
def test_what_pages_show(deployed: Terminal) -> None:
    check(deployed, [one for one in in_files() if COMMAND.search(one.script) and one.page not in WALKED])


@pytest.mark.slow
@pytest.mark.real
def test_what_the_product_says(deployed: Terminal) -> None:
    check(deployed, list(in_product()))
