"""gcloud in a fork says and does what gcloud by itself does, ends as it is told to, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from local_cloud.addresses import Addresses
from local_cloud.gcloud import gcloud_environment
from tests.real_gcloud import Answer, find_gcloud, run_group
from tests.support import Service, clean_environment, wait_until
from tests.warm_gcloud import warm_path

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.xdist_group("gcloud")]

MANIFEST = """
apiVersion: run.googleapis.com/v1
kind: Job
metadata: {name: lane}
spec:
  template:
    spec:
      taskCount: 3
      template: {spec: {containers: [{image: i}]}}
"""
COMMANDS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("version", {}),
    ("config set run/region europe-west1", {}),
    ("config list --format=json", {}),
    ("config list", {"CLOUDSDK_ACTIVE_CONFIG_NAME": "none-such", "CLOUDSDK_CORE_VERBOSITY": "debug"}),
    ("info --format=json(basic,environment,installation.sdk_root,installation.path)", {}),
    ("pubsub topics create t", {}),
    ("pubsub topics create t", {}),
    ("pubsub topics describe t", {"CLOUDSDK_CORE_USER_OUTPUT_ENABLED": "false"}),
    ("pubsub subscriptions create s --topic=t --ack-deadline=30 --format=json", {}),
    ("pubsub topics list --nope", {}),
    ("run jobs replace -", {}),
    ("run jobs list --format=value(name,spec.template.spec.taskCount)", {}),
    ("run jobs describe none", {"CLOUDSDK_RUN_REGION": "us-central1"}),
    ("run jobs describe lane --format=yaml(spec)", {"LC_ALL": "C"}),
    ("storage buckets create gs://{project}-b", {}),
    ("storage cp {file} gs://{project}-b/one", {}),
    ("storage cat gs://{project}-b/one", {"NO_COLOR": "1", "COLUMNS": "40"}),
    ("storage ls gs://{project}-b --json", {}),
    ("compute", {"TERM": "xterm"}),
)


def normal(answer: Answer, project: str, folder: Path) -> tuple[int, str, str]:
    """Without what differs between two runs: names that the test gave, times, ids, numbers of processes."""
    texts = []
    for text in (answer.output, answer.messages):
        known = text.replace(project, "PROJECT").replace(str(folder), "FOLDER")
        known = re.sub(r"^[.\s]+$", "", known, flags=re.MULTILINE)  # dots that tell of progress: one for each moment that it took
        known = re.sub(r"\d{4}[-.]\d\d[-.]\d\d[T/ ][\d:.]+[0-9Z]|[0-9a-f]{8}-[0-9a-f-]{27}|\b\d{9,}\b|\d+\.\d+(?=s|MiB)", "N", known)
        texts.append(re.sub(r'"(etag|generation|md5Hash|id|selfLink|mediaLink)": .*|(uid|etag|resourceVersion): .*', "", known))
    return (answer.code, *texts)  # type: ignore[return-value]  # two texts


@pytest.mark.timeout(480)  # nineteen times the start of gcloud, which takes a busy machine five seconds
def test_a_command_in_a_fork_answers_as_one_that_is_started(
    local_pubsub: Service, local_storage: Service, local_run: Service, tmp_path: Path, project: str
) -> None:
    find_gcloud()
    addresses = Addresses(local_pubsub.grpc, local_pubsub.http, local_storage.http, local_run.http)
    answers: dict[str, list[tuple[int, str, str]]] = {}
    for kind in ("started", "forked"):
        own, folder = f"{project}-{kind[:1]}", tmp_path / kind
        folder.mkdir()
        (folder / "data").write_text("a,b\n1,2\n", encoding="utf-8")
        for words, more in COMMANDS:
            arguments = words.format(project=own, file=folder / "data").split()
            settings = gcloud_environment(addresses, folder / "gcloud", arguments if arguments[0] != "compute" else ())
            if arguments[0] == "config":
                del settings["CLOUDSDK_ACTIVE_CONFIG_NAME"], settings["CLOUDSDK_RUN_REGION"]
            environment = {**clean_environment(), **settings, "CLOUDSDK_CORE_PROJECT": own, **more}
            if kind == "forked":
                environment["PATH"] = warm_path(environment)
                assert environment["PATH"] != os.environ["PATH"]
            answer = run_group(["gcloud", *arguments], environment, MANIFEST if "-" in arguments else "")
            answers.setdefault(kind, []).append(normal(answer, own, folder))
    for (words, _), started, forked in zip(COMMANDS, answers["started"], answers["forked"], strict=True):
        assert forked == started, words
    assert {code for code, _, _ in answers["started"]} == {0, 1, 2}


def waiting(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A command that waits for its standard input, and ignores no signal, whatever started the tests."""
    environment = {**clean_environment(), **gcloud_environment(Addresses("x:9", "http://x:9", "http://x:9", "http://x:9"), tmp_path, ())}
    environment["PATH"] = warm_path(environment)
    command = ["gcloud", "run", "jobs", "replace", "-"]
    pipe = subprocess.PIPE
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0, preexec_fn=heard)


def reads_nothing_any_more(process: subprocess.Popen[bytes]) -> bool:
    """Whether nobody has the other end of the command's standard input."""
    assert process.stdin is not None
    try:
        os.write(process.stdin.fileno(), b"#\n")
    except BrokenPipeError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_command_in_the_fork(number: signal.Signals, tmp_path: Path) -> None:
    find_gcloud()
    with waiting(tmp_path) as process:
        wait_until(lambda: any(tmp_path.glob("logs/*/*.log")), description="the command's log")
        assert not reads_nothing_any_more(process)
        process.send_signal(number)
        assert process.wait(60) == -number
        wait_until(lambda: reads_nothing_any_more(process), description="the end of the command")


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)"])
def test_the_server_ends_with_the_process_that_started_it(end: str) -> None:
    find_gcloud()
    code = f"import os; from tests.warm_gcloud import warm_path; print(warm_path(dict(os.environ)).split(':')[0], flush=True); {end}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    folder = Path(ran.stdout.strip())
    assert folder.name.startswith("gcloud-"), ran.stderr
    wait_until(lambda: not folder.exists(), description="the end of the server")


def test_a_cloud_sdk_of_another_layout_is_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "gcloud"
    program.write_text("#!/bin/sh\necho something else\n", encoding="utf-8")
    program.chmod(0o700)
    environment = {"PATH": f"{tmp_path}:/bin"}
    assert warm_path(environment) == environment["PATH"]
    assert warm_path({"PATH": str(tmp_path / "none")}) == str(tmp_path / "none")
