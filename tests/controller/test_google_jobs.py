"""Cloud Run's answers through the real client: pages, and bodies that it would never send. Each becomes a value or one of our errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch.model.errors import DependencyForbidden, DependencyUnavailable
from controller.observe.deployed import DeployedJobs, JobChanged
from controller.observe.google_jobs import GoogleJobRunner
from controller.observe.jobs import LaunchRefused, LaunchThrottled, LaunchUnclear, RunRequest

JOB = "projects/p/locations/r/jobs/j"
EXECUTION = f"{JOB}/executions/e"
NOT_CLOUD_RUN = [
    (200, b""),
    (200, b"<html>proxy</html>"),
    (200, b"{"),
    (302, b""),
    (503, b"<html>"),
    (200, b'{"jobs": 5, "tasks": 5, "executions": 5, "name": 5}'),
]


class Stub(ThreadingHTTPServer):
    """Answers every request with the next of `answers`; the last one is repeated."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answers: list[tuple[int, bytes]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.paths.append(self.path)
        code, body = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def runner(stub: Stub) -> Iterator[GoogleJobRunner]:
    with closing(GoogleJobRunner("p", "r", emulator_url=stub.url)) as found:
        yield found


@pytest.mark.parametrize(("code", "body"), NOT_CLOUD_RUN)
def test_an_answer_that_is_not_cloud_runs_is_a_dependency_error(stub: Stub, runner: GoogleJobRunner, code: int, body: bytes) -> None:
    stub.answers = [(code, body)]
    calls: list[Callable[[], object]] = [
        runner.jobs,
        lambda: list(runner.executions(JOB)),
        lambda: runner.execution(EXECUTION),
        lambda: runner.workers(EXECUTION),
    ]
    for call in calls:
        with pytest.raises(DependencyUnavailable) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(LaunchUnclear):
        runner.run(JOB, RunRequest(1))


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"name": "x"}'])
def test_an_execution_without_its_times_is_a_dependency_error(stub: Stub, runner: GoogleJobRunner, body: bytes) -> None:
    stub.answers = [(200, body)]
    with pytest.raises(DependencyUnavailable, match="cannot be read, is that Cloud Run"):
        runner.execution(EXECUTION)
    with pytest.raises(LaunchUnclear):
        runner.run(JOB, RunRequest(1))


def test_only_a_clear_no_is_a_refusal(stub: Stub, runner: GoogleJobRunner) -> None:
    for code, kind in ((429, LaunchThrottled), (400, LaunchRefused), (404, LaunchRefused), (500, LaunchUnclear), (408, LaunchUnclear)):
        stub.answers = [(code, b"{}")]
        with pytest.raises(kind):
            runner.run(JOB, RunRequest(1))


def test_a_refusal_names_the_role_or_the_quota_that_is_wanting(stub: Stub, runner: GoogleJobRunner) -> None:
    stub.answers = [(403, b'{"error": {"code": 403, "message": "run.jobs.runWithOverrides denied"}}')]
    with pytest.raises(LaunchRefused, match=r"grant .* fanoutController .*, or roles/run\.jobsExecutorWithOverrides on the job"):
        runner.run(JOB, RunRequest(1))
    stub.answers = [(429, b'{"error": {"code": 429, "message": "Quota exceeded"}}')]
    with pytest.raises(LaunchThrottled, match="quota of job run requests per minute"):
        runner.run(JOB, RunRequest(1))
    assert len(stub.paths) == 2


def test_an_annotation_that_cannot_be_set_says_why(stub: Stub, runner: GoogleJobRunner) -> None:
    job = json.dumps({"metadata": {"name": "j", "annotations": {"a": "b"}}, "spec": {}}).encode()
    stub.answers = [(403, b"{}")]
    with pytest.raises(DependencyForbidden, match="cannot set fanout/paused"):
        runner.set_annotation(JOB, "fanout/paused", "true")
    stub.answers = [(200, job), (409, b"{}")]
    with pytest.raises(JobChanged, match=r"cannot set fanout/paused .*somebody else changed it"):
        runner.set_annotation(JOB, "fanout/paused", "true")


def test_a_job_that_changes_meanwhile_is_read_again(stub: Stub, runner: GoogleJobRunner) -> None:
    job = json.dumps({"metadata": {"name": "j"}, "spec": {}}).encode()
    stub.answers = [(200, job), (409, b"{}"), (200, job), (200, job)]
    runner.set_annotation(JOB, "fanout/paused", "true")
    assert len(stub.paths) == 4


def test_workers_come_from_all_pages(stub: Stub, runner: GoogleJobRunner) -> None:
    result = {"exitCode": 0, "termSignal": 11, "status": {"code": 10, "message": "Container terminated on signal 11."}}
    ended = {"name": f"{EXECUTION}/tasks/a", "completionTime": "2026-01-31T12:00:00.5Z", "retried": 1, "lastAttemptResult": result}
    first = {"tasks": [ended, {"name": f"{EXECUTION}/tasks/b", "index": 1}], "nextPageToken": "more"}
    stub.answers = [(200, json.dumps(first).encode()), (200, json.dumps({"tasks": [{**ended, "index": 2}]}).encode())]
    workers = runner.workers(EXECUTION)
    assert [(one.index, one.completed_at, one.last_ended) for one in workers] == [(0, 1769860800.5, 1), (1, None, -1), (2, 1769860800.5, 1)]
    assert [(one.exit_code, one.term_signal) for one in workers] == [(None, 11), (None, None), (None, 11)]
    assert workers[0].message == "Container terminated on signal 11."
    assert ["pageToken=more" in path for path in stub.paths] == [False, True]


def test_no_answer_is_told_in_one_line_with_what_to_do() -> None:
    with closing(GoogleJobRunner("p", "r", emulator_url="http://127.0.0.1:1")) as runner, pytest.raises(DependencyUnavailable) as caught:
        runner.jobs()
    assert str(caught.value) == (
        "cannot list the jobs of project p, region r: Cloud Run at http://127.0.0.1:1 does not answer (Connection refused): "
        "is the local cloud up, and CLOUD_RUN_EMULATOR_HOST its address?"
    )
    with closing(DeployedJobs("p", "r", emulator_url="http://127.0.0.1:1")) as jobs, pytest.raises(DependencyUnavailable) as caught:
        jobs.read("j")
    assert "does not answer (Connection refused)" in str(caught.value)


def test_an_account_that_the_caller_may_not_use_is_told_with_what_to_do(stub: Stub) -> None:
    """Cloud Run says the same of one that does not exist."""
    told = "Permission 'iam.serviceaccounts.actAs' denied on service account w@p.iam.gserviceaccount.com (or it may not exist)."
    stub.answers = [(403, json.dumps({"error": {"message": told}}).encode())]
    with closing(DeployedJobs("p", "r", emulator_url=stub.url)) as jobs, pytest.raises(DependencyForbidden) as caught:
        jobs.apply("j", {"metadata": {"name": "j"}}, exists=False)
    assert all(one in str(caught.value) for one in ("cannot apply job j", "service-accounts create", "roles/iam.serviceAccountUser"))
