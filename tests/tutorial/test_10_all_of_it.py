"""All of it with real processes: tasks are submitted, a worker drains them, the proof accounts for each. Pub/Sub and Cloud Storage are the
local cloud's, behind their real wire protocols."""

from __future__ import annotations

import json
from contextlib import closing

from click.testing import CliRunner

from fanout.submission import proof, submit
from tests.e2e.site import Site
from tests.support import Service


def test_three_tasks_on_the_local_cloud(local_pubsub: Service, local_storage: Service, project: str) -> None:
    tasks = "\n".join(json.dumps({"task_type": "data_transformation", "transformation": "normalize", "seed": n}) for n in range(3))
    with closing(Site(project, local_pubsub.grpc, local_storage.http)) as site:  # a bucket, a topic, its subscription
        environment = site.environment()
        submitted = CliRunner().invoke(submit.command, ["-", "--topic", "lane", "--json"], input=tasks, env=environment)
        submission_id = json.loads(submitted.stdout)["submission_id"]

        worker = site.run(MAX_MESSAGES=3)  # `python -m batch`, as Cloud Run starts it
        assert (worker.code, worker.summary["exit_reason"], worker.summary["taken"]) == (0, "share_done", 3)

        proven = CliRunner().invoke(proof.command, [submission_id], env=environment)
        assert (proven.exit_code, "complete, every task is accounted for" in proven.stdout) == (0, True)
        assert len([name for name in site.names("results/") if name.endswith(".json")]) == 3
