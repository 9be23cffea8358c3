"""Edits of a deployed job by the real gcloud: a wrong one keeps the tick from launching and is told by doctor, a right one does neither."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from controller.decide.decision import HoldCause, Kind
from controller.lanes.lanes import lanes_of
from controller.lanes.manifests import Filling, checked_manifests
from controller.lanes.rules import Home
from controller.model.reading import Value
from controller.observe.deployed import DeployedJobs
from controller.observe.google_jobs import GoogleJobRunner
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes
from fanout import apply
from fanout.doctor.lane_checks import of_job, of_refused
from fanout.doctor.place import Place
from local_cloud.addresses import Addresses
from tests.controller.fakes import FakeBacklog
from tests.real_gcloud import Gcloud, find_gcloud
from tests.support import Service

pytestmark = [pytest.mark.slow, pytest.mark.real]
JOBS_FILE = Path(__file__).parents[2] / "jobs.yaml"
REGION = "us-central1"
NOWHERE = "http://127.0.0.1:9"
BUCKET = "the-bucket"


class Deployed:
    """The lanes of jobs.yaml on the local Cloud Run, without workers; the rest of a controller's world in memory."""

    def __init__(self, project: str, run: str, folder: Path) -> None:
        self.gcloud = Gcloud(Addresses("127.0.0.1:9", NOWHERE, NOWHERE, run), folder, project)
        self.jobs = DeployedJobs(project, REGION, emulator_url=run)
        self.runner = GoogleJobRunner(project, REGION, emulator_url=run)
        self.project = project
        filling = Filling(project, BUCKET, image="an/image")
        for one in checked_manifests(JOBS_FILE.read_text(encoding="utf-8"), filling, Home(project, BUCKET)):
            if one.name == "default":
                self.manifest = one
                self.jobs.apply(one.name, one.document, exists=False)

    def edit(self, *options: str) -> None:
        """Of the healthy job."""
        found = self.jobs.read("default")
        self.jobs.apply("default", self.manifest.document, exists=found is not None)
        answer = self.gcloud("run", "jobs", "update", "default", *options)
        assert answer.code == 0, answer.messages

    def ticked(self) -> tuple[Kind | None, str]:
        """What a tick decides for a full lane, and why. It is a dry one: what it would launch counts."""
        clock, backlog = ManualClock(), FakeBacklog()
        backlog.reading = Value(100, clock.now(), 12.0)
        world = MemoryObjectStore(clock=clock), self.runner, backlog, clock, random.Random(7), MemoryBroker(clock).topic
        outcome = tick_lanes(replace(Outside(*world), home=Home(self.project, BUCKET)), dry_run=True)
        if not outcome.results:
            return None, "; ".join(problem for one in outcome.refused for problem in one.problems)
        decision = outcome.results[0].decision
        assert decision.hold_cause in (None, HoldCause.MISCONFIGURED)
        return decision.kind, decision.reason

    def doctored(self) -> list[str]:
        """What doctor says of the job."""
        (job,) = self.runner.jobs()
        lanes, refused = lanes_of([job], Home(self.project, BUCKET))
        found = [finding for one in refused for finding in of_refused(one)]
        found += [finding for lane in lanes for finding in of_job(lane, job, Place(self.project, REGION, BUCKET))]
        return [f"{one.verdict}: {one.what}" for one in found if one.verdict != "fine"]


@pytest.fixture(scope="module")
def deployed(local_run: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    find_gcloud()
    found = Deployed("t-wrong-edits", local_run.http, tmp_path_factory.mktemp("gcloud") / "gcloud")
    with closing(found.jobs), closing(found.runner):
        yield found


SET = "--update-env-vars="
WRONG: list[tuple[Sequence[str], str]] = [
    ([f"{SET}SUBSCRIPTION_NAME=bulk"], "env SUBSCRIPTION_NAME='bulk' differs from the annotation fanout/subscription='default': make"),
    (["--set-env-vars=FOO=1"], "env SUBSCRIPTION_NAME is not set, and must be as the annotation fanout/subscription='default'"),
    (["--remove-env-vars=BUCKET_NAME"], "env BUCKET_NAME is not set, and must be as the controller's bucket='the-bucket'"),
    ([f"{SET}BUCKET_NAME=other-bucket"], "env BUCKET_NAME='other-bucket' differs from the controller's bucket"),
    ([f"{SET}GOOGLE_CLOUD_PROJECT=elsewhere"], "env GOOGLE_CLOUD_PROJECT='elsewhere' differs from the controller's project"),
    ([f"{SET}TOPIC_NAME=bulk"], "env TOPIC_NAME='bulk' differs from the annotation fanout/topic='default'"),
    ([f"{SET}LANE=bulk"], "env LANE='bulk' differs from the label fanout-lane='default'"),
    ([f"{SET}CONCURRENCY=eight"], "env CONCURRENCY='eight': a whole number from 1 to 1000"),
    ([f"{SET}CONCURENCY=16"], "env CONCURENCY is no setting; did you mean CONCURRENCY?"),
    ([f"{SET}BACKLOG=10"], "env BACKLOG is for one launch only"),
    ([f"{SET}ACCEPT=raw"], "env ACCEPT='raw' differs from the annotation fanout/accept, which is not set"),
    (["--task-timeout=20m"], "env HANDLER_TIMEOUT_S=900: must be at most half of TASK_TIMEOUT_S=1200"),
    (["--command=python", "--args=-m,bacth"], "command 'python -m bacth' runs no worker: did you mean -m batch, not -m bacth?"),
    (["--command=python,-m,batch", "--args=--concurency=8"], "did you mean option --concurrency?"),
    (["--command=python,-m,batch,dead-letters"], "is that of the dead-letters job"),
    (["--parallelism=2", "--tasks=2"], "spec.template.spec.parallelism=2: must be 0 or absent"),
    (
        ["--remove-labels=fanout-lane"],
        "metadata.labels[fanout-lane] is not set, and its annotations are a lane's",
    ),
    (["--update-labels=fanout-lane=bulk"], "env LANE='default' differs from the label fanout-lane='bulk'"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_a_wrong_edit_is_told_and_nothing_is_launched(deployed: Deployed, options: Sequence[str], said: str) -> None:
    deployed.edit(*options)
    kind, reason = deployed.ticked()
    assert kind in (None, Kind.HOLD)
    assert said in reason
    found = deployed.doctored()
    (told,) = [one for one in found if ("parallelism is 2, must be 0" if "parallelism" in said else said) in one]
    assert told.startswith("wrong: ")
    assert len(found) == len({*found})
    assert not [one for one in found if "parallelism" in one and one != told]


RIGHT: list[tuple[Sequence[str], Sequence[str]]] = [
    (["--task-timeout=2h"], ["wrong: the task timeout is 7200 s, TASK_TIMEOUT_S is '3600'"]),
    (["--max-retries=0"], ["advice: maxRetries is 0: a worker that is killed is not replaced; 1 is recommended"]),
    (["--memory=512Mi", f"{SET}DATABASE_URL=x,MY_BUCKET_NAME=y", "--service-account=a@p.iam.gserviceaccount.com"], []),
]


@pytest.mark.parametrize(("options", "said"), RIGHT)
def test_a_job_that_works_is_launched(deployed: Deployed, options: Sequence[str], said: Sequence[str]) -> None:
    deployed.edit(*options)
    assert deployed.ticked()[0] is Kind.LAUNCH
    assert deployed.doctored() == list(said)


def test_what_gcloud_has_set_is_shown_before_it_is_taken_away(deployed: Deployed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deployed.edit("--network=my-net", "--vpc-egress=all-traffic", "--key=projects/p/locations/r/keyRings/k/cryptoKeys/c")
    monkeypatch.setenv("CLOUD_RUN_EMULATOR_HOST", deployed.gcloud.addresses.run)
    jobs_file = tmp_path / "jobs.yaml"
    jobs_file.write_text(json.dumps(deployed.manifest.document), encoding="utf-8")
    options = ["--project", deployed.project, "--bucket", BUCKET]
    refused = CliRunner().invoke(apply.apply, [str(jobs_file), *options], input="n\n")
    assert refused.output.splitlines()[:4] == [
        "job default (lane default): 3 changes",
        "  - template.annotations[run.googleapis.com/encryption-key]: projects/p/locations/r/keyRings/k/cryptoKeys/c",
        """  - template.annotations[run.googleapis.com/network-interfaces]: [{"network": "my-net"}]""",
        "  - template.annotations[run.googleapis.com/vpc-access-egress]: all-traffic",
    ]
