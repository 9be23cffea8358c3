"""The image itself, built and run: `make image-check`. No part of `make test`, which has no minute for it and needs no root.

Each entry runs as the image's own user on a root that it cannot write to, against the local cloud.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from batch.model.names import processed_object
from bench.container import Image, built, terminate
from bench.image import AS_IT_IS, HEALTH_ROUTES, SERVING, lines, listening, measure
from bench.recording import Measure
from tests.e2e.site import Ended, Site, ended
from tests.support import Service

COUNT = 300
LABELS = {"VERSION": "1.2.3", "REVISION": "0123abc", "SOURCE": "https://example.com/fanout"}


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    with built(**LABELS) as made:
        yield made


@pytest.fixture
def site(project: str, local_storage: Service, local_pubsub: Service) -> Iterator[Site]:
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Of the container; the folders above it are for the one who runs the tests, and a mount does not mind."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def entry(image: Image, site: Site, temporary: Path, command: Sequence[str] = (), *, read_only: bool = True, **more: object) -> Any:
    given = {name: value for name, value in site.environment(**more).items() if name not in os.environ}
    process = image.start(temporary, given, command, read_only=read_only)
    site.processes.append(process)
    return process


def run(image: Image, site: Site, temporary: Path, command: Sequence[str] = (), *, read_only: bool = True, **more: object) -> Ended:
    return ended(entry(image, site, temporary, command, read_only=read_only, **more))


def fill(site: Site) -> None:
    """Files to process, a table among the tasks, and one task that can only die."""
    for number in range(COUNT):
        site.upload(f"input/{number}.csv", b"id,name\n" + f"{number},x\n".encode() * 20)
    files = [{"task_id": f"f-{number}", "task_type": "file_processing", "filename": f"{number}.csv"} for number in range(COUNT)]
    table = {"task_id": "t-1", "task_type": "data_transformation", "source": "input/1.csv", "operation": "deduplicate"}
    site.publish([*files, table, {"task_id": "d-1", "task_type": "nobody_knows"}])


@pytest.mark.parametrize("read_only", [True, False])
def test_a_backlog_is_drained(image: Image, site: Site, temporary: Path, tmp_path: Path, read_only: bool) -> None:
    """Once on a root that cannot be written to; once more where it could, to see that nothing tries."""
    fill(site)
    stamp = tmp_path / "stamp"
    stamp.touch()
    end = run(image, site, temporary, read_only=read_only)
    assert (end.code, end.summary["exit_reason"]) == (0, "drained"), end.text
    assert site.final() == {"succeeded": COUNT + 1, "dead": 1}, end.text
    assert {processed_object(f"{number}.csv") for number in range(COUNT)} <= set(site.names("processed/"))
    assert written_since(stamp, image.root) == []


def written_since(stamp: Path, root: Path) -> list[str]:
    """What is newer: the folders where a container's devices, processes and temporary files are mounted are nothing of the image's."""
    found = subprocess.run(["find", str(root), "-xdev", "-newer", str(stamp)], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if Path(line).relative_to(root).parts[:1] not in [("dev",), ("proc",), ("tmp",)]]


def test_what_is_written_outside_would_be_seen(image: Image, site: Site, temporary: Path, tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    stamp.touch()
    probe = "import os; open('/tmp/a', 'w').close(); open('/var/tmp/probe', 'w').close()"
    refused = run(image, site, temporary, ["python", "-c", probe])
    assert (refused.code, "Read-only file system: '/var/tmp/probe'" in refused.text) == (1, True)
    assert written_since(stamp, image.root) == []
    assert run(image, site, temporary, ["python", "-c", probe], read_only=False).code == 0
    seen = written_since(stamp, image.root)
    (image.root / "var/tmp/probe").unlink()
    assert seen == [str(image.root / "var/tmp"), str(image.root / "var/tmp/probe")]


def test_the_dead_letters_job_drains(image: Image, site: Site, temporary: Path) -> None:
    rules = {"errors": [], "after_s": 600, "times": 3, "rate": 100}
    lane = {"name": "lane", "subscription": "lane", "topic": "lane", "rules": rules}
    site.upload("controller/lanes.json", json.dumps({"lanes": {"lane": lane}}).encode())
    site.publish([{"task_id": "d-1", "task_type": "nobody_knows", "lane": "lane"}])
    assert run(image, site, temporary).code == 0
    job = ["python", "-m", "batch", "dead-letters"]
    end = run(image, site, temporary, job, CLOUD_RUN_JOB="dead-letters", CLOUD_RUN_EXECUTION="dead-letters-x", DRAIN_AFTER_S=0.5)
    assert (end.code, end.lines[-1]["event"]) == (0, "dead_letters_ended"), end.text
    assert site.names("dead/lane/")


@pytest.mark.parametrize("name", list(SERVING))
def test_a_service_answers_and_ends_at_a_signal(image: Image, site: Site, temporary: Path, local_run: Service, name: str) -> None:
    settings: dict[str, Any] = {
        "PORT": 0,
        "TOPIC_NAME": "lane",
        "CLOUD_RUN_EMULATOR_HOST": local_run.http,
        "CLOUD_MONITORING_EMULATOR_HOST": site.pubsub,
    }
    process = entry(image, site, temporary, SERVING[name], **settings)
    url = listening(process.stdout)
    with urllib.request.urlopen(url + HEALTH_ROUTES[name], timeout=60) as answer:
        assert json.load(answer)["status"] == "healthy"
    terminate(process)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()


def test_it_runs_as_nobody_in_particular(image: Image, site: Site, temporary: Path) -> None:
    code = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), open('/proc/self/status').read())"
    said = run(image, site, temporary, ["python", "-c", code]).text
    assert said.startswith(f"{(image.user,) * 3} {(image.group,) * 3} []")
    assert image.user >= 1000
    assert image.group != 0
    assert "CapEff:\t0000000000000000" in said


def test_it_holds_no_tool_to_build_or_install_with_and_nothing_setuid(image: Image) -> None:
    folders = [image.root / one for one in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "opt/fanout/bin")]
    commands = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    assert not commands & {"pip", "pip3", "gcc", "cc", "g++", "make", "ld", "as", "git", "curl", "wget", "uv", "easy_install"}
    modules = {path.name for folder in image.root.glob("**/*-packages") for path in folder.iterdir()}
    assert not modules & {"pip", "setuptools", "wheel", "_distutils_hack"}
    assert "google" in modules
    assert not list(image.root.glob("usr/**/ensurepip"))
    special = ["find", str(image.root), "-xdev", "-type", "f", "-perm", "/6000"]
    assert subprocess.run(special, capture_output=True, text=True, check=True).stdout == ""
    owned = ["find", str(image.root / "opt"), "!", "-uid", "0"]
    assert subprocess.run(owned, capture_output=True, text=True, check=True).stdout == "", "what runs could be changed by itself"
    assert not list(image.root.rglob(".*_history"))


def test_labels_say_where_it_comes_from(image: Image) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.labels.items()}
    assert {name.upper(): labels[name] for name in ("version", "revision", "source")} == LABELS


def test_size_and_starts(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    """What was recorded with care stands in docs/benchmarks.md; this shows that of today."""
    size, start = Measure("size", "MB", ""), Measure("start", "s", "")
    measure(image, size, start, variant=AS_IT_IS, starts=2)
    with capsys.disabled():
        print("", *lines([size, start]), "", sep="\n")
    assert len(start.runs) == 4
