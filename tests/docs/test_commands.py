"""None of the gcloud commands that Fanout shows was not run: each is, as written, by the real gcloud, which says if it takes the flags.

What the local cloud serves is done there; the recording endpoint keeps the rest. Neither checks permissions, quotas, or what Google says.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from local_cloud.addresses import Addresses
from tests.deploy.recorder import Recorder
from tests.docs.shown.pages import COMMAND, Shown, files, in_comments, in_data, in_files, in_markdown, in_text, unquoted
from tests.docs.shown.product import in_product, in_tree
from tests.docs.shown.running import Terminal, filled
from tests.real_gcloud import find_gcloud
from tests.support import Service

GUIDE = "docs/operations.md"
"""Its blocks are all run, in their order; of other pages those with a gcloud command are."""
FRONT = "README.md"
"""What it shows for a laptop runs in test_readme.py; for Google Cloud it shows commands of the guide."""
SKIPPED: Mapping[str, str] = {
    "gcloud components install": "changes the Cloud SDK of this machine",
    "gcloud auth login": "opens a browser and waits for a person",
    "gcloud auth application-default login": "opens a browser and waits for a person",
    "gcloud auth print-identity-token": "asks Google who is logged in, and nobody is",
}
"""Beginnings of commands that are not run, and why. That they exist is looked up in gcloud's help, which is run."""
MENTIONS: Mapping[str, str] = {
    "gcloud builds submit": "what uploads the sources",
    "gcloud pubsub": "the group of commands",
    "gcloud run": "the group of commands",
    "gcloud run jobs": "the group of commands",
    "gcloud run jobs logs read": "what the local cloud does not serve",
    "gcloud run jobs replace": "what takes a manifest",
    "gcloud run jobs replace -": "the same, from a pipe",
    "gcloud run services replace": "what takes a manifest",
    "gcloud storage": "the group of commands",
    "gcloud storage buckets notifications create --skip-topic-setup": "an option of the command",
}
"""Commands that a text speaks about, and shows nothing to run: their help is asked for."""
STUBS: Mapping[str, str] = {
    "a-person": f"sed -i 's/^BASE_DIGEST=.*/BASE_DIGEST=sha256:{'a' * 64}/' \"$1\"",
    "docker": "exit 0  # no image is built here: see tests/deploy/image",
    "git": '[ "$1" = pull ] || [ "$1" = commit ] || exec /usr/bin/git "$@"  # there is nothing to pull, and the copy is no repository',
    "make": "exit 0  # no environment is made here: see tests/docs/test_readme.py",
}
"""Programs that do less here, as scripts, and why."""
PLACEHOLDERS: Mapping[str, str] = {
    "ACCOUNT": "000000-000000-000000",
    "EXECUTION": "$EXECUTION",
    "NOTIFICATION": "$NOTIFICATION",
    "IMAGE": "us-central1-docker.pkg.dev/my-project/fanout/fanout",
    "EMAIL": "fanout-controller@my-project.iam.gserviceaccount.com",
    "ID": "0123456789abcdef",
    "…/fanout:latest": "us-central1-docker.pkg.dev/my-project/fanout/fanout:$TAG",
    "KEY": "projects/my-project/locations/us-central1/keyRings/fanout/cryptoKeys/bucket",
    "LANE": "default",
    "PROJECT": "my-project",
    "TASK": "0123456789abcdef-s-20260101-000000-00000000",
    "TOPIC": "default",
}
"""What a reader puts in."""
FOUND: Mapping[str, str] = {"DIGEST": "sha256:" + "0" * 64, "REVISION": "fanout-intake-00001-rec"}
"""The same, where it stands in a block."""
READY: Mapping[str, str] = {
    r"\$EXECUTION": "EXECUTION=$(gcloud run jobs execute dead-letters --region=us-central1 --format='value(metadata.name)')",
    r"\$NOTIFICATION": "NOTIFICATION=projects/_/buckets/$BUCKET_NAME/notificationConfigs/"
    "$(gcloud storage buckets notifications create gs://$BUCKET_NAME --topic=uploads --skip-topic-setup --format='value(id)')",
    r"\$TAG": "TAG=$(gcloud artifacts docker tags list us-central1-docker.pkg.dev/my-project/fanout/fanout --format='value(tag)')",
    r"secrets create fanout-api-keys": "gcloud secrets delete fanout-api-keys --quiet 2> /dev/null || true",
    r"subscriptions delete spare": "gcloud pubsub subscriptions create spare --topic=uploads",
    r"storage ls .*delayed/": "echo x | gcloud storage cp - gs://$BUCKET_NAME/delayed/default/x",
    r"storage mv .*controller/default.json": "echo x | gcloud storage cp - gs://$BUCKET_NAME/controller/default.json",
    r"secrets versions access": "gcloud secrets create fanout-api-keys --data-file=/dev/null 2> /dev/null || true",
    r"objects update": "echo x | gcloud storage cp - gs://$BUCKET_NAME/input/a.csv",
}
"""What must be there for a command to have an effect, by what it contains."""
FRESH = re.compile(r"\b((?:topics|subscriptions|service-accounts|buckets|jobs) create (?:http )?)([\w:/-]+)")
"""What a text's command creates has a name of its own at each run."""
REFUSED: Mapping[str, str] = {
    "gcloud storage restore": "the local cloud keeps no deleted bucket, and says so to the right request",
    "gcloud storage ls --buckets --soft-deleted": "the same",
}
"""Commands that end with another exit code than 0 here, and why."""
BEFORE = """
gcloud compute networks create default
gcloud compute networks subnets create default --network=default --region=us-central1 --range=10.0.0.0/26
gcloud storage buckets create gs://uploads gs://default
gcloud pubsub topics create uploads
curl --silent --fail --data "{\\"url\\": \\"$PUBSUB_HTTP\\"}" $STORAGE_EMULATOR_HOST/pubsub
"""
"""What belongs to the reader: a network, other buckets."""
NUMBERS = itertools.count(1)
NAMES = {"MEMBER": f"serviceAccount:{PLACEHOLDERS['EMAIL']}", "SCHEDULER_ACCOUNT": "fanout-scheduler@my-project.iam.gserviceaccount.com"}
NAMES |= {
    "EDITOR": "a-person",
    "FANOUT_RETRY_S": "0",
    "REGION": "us-central1",
    "GOOGLE_CLOUD_PROJECT": "my-project",
    "BUCKET_NAME": "my-project-fanout",
}


# --- what is found


def test_the_finder_finds_a_command_of_each_form() -> None:
    page = "```sh\nA=1\ngcloud run jobs list\n```\n\n"
    page += "See `gcloud storage ls gs://a\nb`, ``gcloud config set core/x `y` ``.\n\n```python\ngcloud = 1\n```\n"
    assert [one.script for one in in_markdown("p.md", page)] == [
        "A=1\ngcloud run jobs list\n",
        "gcloud storage ls gs://a b",
        "gcloud config set core/x `y`",
    ]
    assert [one.where for one in in_markdown("p.md", page)] == ["p.md:1", "p.md:6", "p.md:7"]
    comments = "# gcloud run jobs list  # all\n"
    comments += "x: 1  # or `gcloud pubsub topics list`\nimage: gcloud\n#   fanout render a | gcloud run jobs replace -\n"
    assert [one.script for one in in_comments("c", comments)] == [
        "gcloud pubsub topics list",
        "gcloud run jobs list",
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
    found = [*in_files(), *in_product()]
    shown = [one.script for one in found if not one.block]
    assert {name for name in MENTIONS if name not in shown} == set(), "nobody speaks about these any more"
    assert {name for name in (*SKIPPED, *REFUSED) if not any(name in one.script for one in found)} == set()
    assert len(shown) > 60


def test_the_front_page_shows_what_the_guide_shows() -> None:
    pages = {page: "\n".join(one.script for one in in_files() if one.page == page and one.block) for page in (FRONT, GUIDE)}
    lines = {page: {re.sub(r"\s+#.*", "", line) for line in text.splitlines()} for page, text in pages.items()}
    front = {line for line in lines[FRONT] if "deploy/" in line or "gcloud " in line}
    assert len(front) == 3
    assert front <= lines[GUIDE]


# --- what is run


@pytest.fixture
def terminal(local_pubsub: Service, local_storage: Service, local_run: Service, tmp_path: Path) -> Iterator[Terminal]:
    find_gcloud()
    addresses = Addresses(local_pubsub.grpc, local_pubsub.http, local_storage.http, local_run.http)
    with Recorder(addresses, "my-project", tmp_path / "gcloud") as recorder:
        yield Terminal(recorder, tmp_path, {**NAMES, "PUBSUB_HTTP": local_pubsub.http}, STUBS)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(600)
def test_each_command_as_written_from_the_first_deploy_to_the_teardown(terminal: Terminal) -> None:
    """The guide is followed in its order; what else pages and the product say is said of what it has deployed; then the guide ends."""
    shown = list(in_files())
    guide = [one for one in shown if one.page == GUIDE]
    last = next(at for at, one in enumerate(guide) if "teardown.sh" in one.script)
    problems = problems_of(terminal, [Shown("before:1", BEFORE, block=True), *guide[:last]])
    pages = [one for one in shown if one.page not in (GUIDE, FRONT) and is_run(one)]
    once = {as_run(one).script: one for one in [*pages, *in_product()]}
    problems += problems_of(terminal, list(once.values()))
    problems += problems_of(terminal, guide[last:], "my-project\n" + "y\n" * 20)
    assert not problems, "\n".join(problems)
    assert terminal.recorder.refused == []


def is_run(shown: Shown) -> bool:
    """Of the pages but the guide."""
    return bool(COMMAND.search(shown.script)) or (shown.block and "deploy/deploy.sh" in shown.script)


def as_run(shown: Shown) -> Shown:
    """What the shell is given for it."""
    script = shown.script
    if not shown.block:
        for start in (*MENTIONS, *SKIPPED):
            if script == start or (start in SKIPPED and start in script):
                return Shown(shown.where, f"{start.removesuffix(' -').partition(' --')[0]} --help")
        return Shown(shown.where, filled(script, PLACEHOLDERS))
    for start in SKIPPED:
        script = re.sub(rf"{re.escape(start)}[^\n)]*", f"{start} --help > /dev/null", script)
    if shown.page != GUIDE and shown.page != FRONT:
        script = "\n".join(line for line in re.split(r"(?<!\\)\n", script) if not re.match(r"\s*fanout [^|]*$", line))
    return Shown(shown.where, filled(script, FOUND), block=True)


def problems_of(terminal: Terminal, shown: list[Shown], typed: str = "") -> list[str]:
    """What fails, and what asked nobody for anything."""
    answer, ran = terminal.run([prepared(as_run(one)) for one in shown], typed)
    problems = [] if answer.code == 0 else [answer.messages]
    problems += [f"this formed no request: {one.words}" for one in ran if not one.requests and not one.is_offline]
    count = sum(len(COMMAND.findall(re.sub(r"#.*", "", one.script))) for one in shown)
    return problems if len(ran) >= count else [*problems, f"{len(ran)} of {count} commands were run: {shown[0].page}"]


def prepared(shown: Shown) -> Shown:
    """With what its command finds there: what it creates is not there, what it deletes is."""
    script = shown.script
    if not shown.block:
        script = FRESH.sub(lambda match: f"{match[1]}{match[2]}-{next(NUMBERS)}", script).replace(
            "subscriptions delete default", "subscriptions delete spare"
        )
        if script.startswith(tuple(REFUSED)):
            script = f"{script} || true"
    lines = [line for pattern, line in READY.items() if re.search(pattern, script)]
    return Shown(shown.where, "\n".join([*lines, script]), shown.block)
