"""Manifests: what is refused, what is completed, and what applying would change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch.dead.draining.settings import DeadLetterSettings
from batch.model.errors import SettingsError
from controller.lanes.differences import differences
from controller.lanes.manifests import Filling, advice, checked_manifests, completed, left_open, read_manifests, rendered
from controller.lanes.rules import Home

JOBS_FILE = Path(__file__).parents[2] / "jobs.yaml"
FILLING = Filling("my-project", "my-bucket", image="an/image")


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(JOBS_FILE.read_text(encoding="utf-8")))


def spec(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["spec"]["template"]["spec"]["template"]["spec"]
    return found


def test_the_file_of_the_project_is_right() -> None:
    manifests = read_manifests(JOBS_FILE.read_text(encoding="utf-8"))
    lanes = [one for one in manifests if one.lane]
    assert [one.lane for one in lanes] == ["urgent", "default", "bulk"]
    assert [line for one in manifests for line in advice(one)] == []
    assert {(one.env["CONCURRENCY"], spec(one.document)["timeoutSeconds"]) for one in lanes} == {("16", 600), ("8", 3600), ("8", 14400)}


@pytest.mark.parametrize("file", [JOBS_FILE, JOBS_FILE.parent / "docs/examples/thumbnails/jobs.yaml"], ids=lambda path: path.parent.name)
def test_the_files_of_the_repository_break_no_rule(file: Path) -> None:
    found = checked_manifests(file.read_text(encoding="utf-8"), FILLING, Home("my-project", "my-bucket"))
    assert [line for one in found for line in advice(one)] == []


def test_the_dead_letters_job_is_no_lane() -> None:
    (job,) = [one for one in read_manifests(JOBS_FILE.read_text(encoding="utf-8")) if not one.lane]
    assert (job.name, job.containers[0]["command"]) == ("dead-letters", ["python", "-m", "batch", "dead-letters"])
    assert set(job.env) <= {one.metadata["env"] for one in fields(DeadLetterSettings)}
    assert job.env["TASK_TIMEOUT_S"] == str(spec(job.document)["timeoutSeconds"])


def _with(change: Callable[[dict[str, Any]], object]) -> str:
    document = documents()[1]
    change(document)
    return str(yaml.safe_dump(document))


def _env(document: dict[str, Any], name: str, value: object) -> None:
    entries = spec(document)["containers"][0]["env"]
    entries[:] = [one for one in entries if one["name"] != name] + [{"name": name, "value": value}]


def _more_than_a_share(document: dict[str, Any]) -> None:
    document["metadata"]["annotations"]["fanout/max-messages"] = "1000"
    _env(document, "MAX_MESSAGES", "5000")


def _limits(document: dict[str, Any], **limits: object) -> None:
    spec(document)["containers"][0]["resources"]["limits"] |= limits


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(kind="Service"), "document 1: kind is 'Service', must be 'Job'"),
        (lambda d: d["metadata"].pop("name"), "metadata.name is not set"),
        (lambda d: d["metadata"]["annotations"].update({"fanout/max-in-flight": "7"}), "max-in-flight=7 is less than a single worker"),
        (lambda d: spec(d).pop("containers"), "at least one container with an image"),
        (lambda d: d["metadata"]["annotations"].update({"fanout/max-workers": 5}), 'write "5" in quotes'),
        (lambda d: d["metadata"]["annotations"].update({"fanout/paused": True}), '[fanout/paused]=true: must be a text; write "true" in'),
        (lambda d: d["metadata"]["annotations"].update({"fanout/topic": None}), '[fanout/topic]=null: must be a text; write ""'),
        (lambda d: d["metadata"]["annotations"].update({1: "x"}), 'metadata.annotations: the name 1 must be a text; write "1" in quotes'),
        (lambda d: d["metadata"]["labels"].update({True: "x"}), 'metadata.labels: the name true must be a text; write "true" in quotes'),
        (lambda d: _env(d, "MAX_MESSAGES", None), 'env[MAX_MESSAGES]=null: must be a text; write "" for an empty one, or leave it out'),
        (lambda d: spec(d).update(at=date(2026, 1, 31)), 'spec.at=datetime.date(2026, 1, 31): must be a text; write "2026-01-31"'),
        (lambda d: spec(d).update(nan=float("nan")), "spec.nan=nan: must be a text"),
        (lambda d: spec(d).update(loop=spec(d)), "spec.loop: an anchor that holds itself"),
        (lambda d: spec(d).update(deep=_nested(60)), "nested more than 50 levels deep"),
        (lambda d: spec(d).update(wide=[[[["x"] * 20] * 20] * 20] * 20), "more than 100000 values"),
        (lambda d: d["metadata"]["annotations"].update({"fanout/max-worker": "5"}), "did you mean fanout/max-workers?"),
        (lambda d: _env(d, "MAX_MESSAGES", 5), 'env[MAX_MESSAGES]=5: must be a text; write "5" in quotes'),
        (lambda d: _env(d, "TASK_TIMEOUT_S", "60"), "TASK_TIMEOUT_S='60' differs from timeoutSeconds=3600"),
        (lambda d: _env(d, "HANDLER_TIMEOUT_S", "1801"), "HANDLER_TIMEOUT_S=1801: must be at most half of TASK_TIMEOUT_S=3600"),
        (lambda d: _env(d, "SUBSCRIPTION_NAME", "other"), "differs from the annotation fanout/subscription='default'"),
        (lambda d: d["spec"]["template"]["spec"].update(parallelism=5), "parallelism=5: must be 0 or absent"),
        (lambda d: spec(d).update(timeoutSeconds="1h"), "timeoutSeconds='1h': must be a whole number from 1 to 604800"),
        (lambda d: spec(d).update(timeoutSeconds=604_801), "timeoutSeconds=604801: must be a whole number from 1 to 604800"),
        (lambda d: spec(d).update(maxRetries="x"), "job default: spec.template.spec.template.spec.maxRetries='x': must be a whole number"),
        (lambda d: spec(d).update(maxRetries=-1), "maxRetries=-1: must be a whole number from 0 to 10"),
        (lambda d: spec(d).update(maxRetrys=1), "spec.template.spec.template.spec.maxRetrys is no field here; did you mean maxRetries?"),
        (lambda d: spec(d)["containers"][0].update(enviroment=[]), "containers[0].enviroment is no field here; did you mean env"),
        (
            lambda d: d["spec"]["template"]["spec"].update(maxRetries=1),
            "spec.template.spec.maxRetries is no field here; it belongs to spec.te",
        ),
        (lambda d: d["spec"]["template"]["spec"].update(parallelism="all"), "parallelism='all': must be a whole number"),
        (lambda d: d["spec"].update(delayexecution="true"), "spec.delayexecution is no field here; did you mean delayExecution?"),
        (lambda d: d["spec"].update(delayExecution="yes"), """spec.delayExecution='yes': must be "true" or "false\""""),
        (lambda d: d.update(sepc={}), "sepc is no field here; did you mean spec?"),
        (lambda d: d["metadata"].update(lables={}), "metadata.lables is no field here; did you mean labels?"),
        (lambda d: d["metadata"].pop("labels"), "labels[fanout-lane] is not set, and its annotations are a lane's: set it to the"),
        (lambda d: _limits(d, memory="1GB"), "limits.memory='1GB': must be a number with Ki, Mi, Gi, k, M or G, such as 512Mi"),
        (lambda d: _limits(d, memory="256Mi"), "limits.memory='256Mi': must be 512Mi to 32Gi"),
        (lambda d: _limits(d, cpu="3"), "limits.cpu='3': must be one of 1, 2, 4, 6, 8"),
        (lambda d: _limits(d, cpu=2), 'limits.cpu=2: must be a text; write "2" in quotes'),
        (lambda d: _limits(d, cpus="2"), "limits.cpus is no field here; did you mean cpu?"),
        (lambda d: spec(d)["containers"].append({"name": "proxy"}), "containers[1] has no image: each container needs one"),
        (
            lambda d: spec(d)["containers"][0].update(command="python -m batch"),
            "command='python -m batch': must be a list of texts, such as [",
        ),
        (lambda d: spec(d)["containers"][0].update(command=["python", "-m", "bacth"]), "did you mean -m batch, not -m bacth?"),
        (
            lambda d: spec(d)["containers"][0]["env"].append({"name": "LANE", "vlaue": "x"}),
            "env[LANE].vlaue is no field here; did you mean v",
        ),
        (lambda d: spec(d)["containers"][0]["env"].append({"name": "LANE", "value": "default"}), "env[LANE] is there twice: leave one"),
        (lambda d: spec(d).update(serviceAccountName="worker"), "serviceAccountName='worker': must be the email of a service account"),
        (lambda d: spec(d).update(volumes={"name": "v"}), "volumes: must be a list"),
        (lambda d: spec(d)["containers"][0].update(env=5), "containers[0].env: a list of names with values"),
        (lambda d: spec(d)["containers"][0].update(resources="2Gi"), "containers[0].resources: must be a mapping, got '2Gi'"),
        (lambda d: _env(d, "CONCURRENCY", "eight"), "job default: env CONCURRENCY='eight': a whole number from 1 to 1000"),
        (lambda d: _env(d, "CONCURENCY", "8"), "env CONCURENCY is no setting; did you mean CONCURRENCY?"),
        (_more_than_a_share, "env MAX_MESSAGES=5000 is above fanout/max-messages=1000"),
    ],
)
def test_what_is_wrong_is_said(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        checked_manifests(_with(change), FILLING)
    assert said in "\n".join(caught.value.problems)


@pytest.mark.parametrize("text", ["", "a: [", "- 1\n- 2", "text", "[" * 5000, "a: 2026-13-45", "&a [*a]", "? [1]\n: 2"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        read_manifests(text)


def test_problems_of_all_documents_come_at_once() -> None:
    first, second, third, _ = documents()
    first["kind"] = "Service"
    second["metadata"]["annotations"]["fanout/weight"] = "0"
    third["metadata"]["name"] = "default"
    with pytest.raises(SettingsError) as caught:
        read_manifests(yaml.safe_dump_all([first, second, third]))
    assert len(caught.value.problems) == 3
    with pytest.raises(SettingsError, match="lane urgent is named by 2 documents"):
        read_manifests(yaml.safe_dump_all([documents()[0], documents()[0]]))


@pytest.mark.parametrize(
    ("retries", "said"), [(0, "is not replaced"), (None, "is not set, and Cloud Run takes 3"), ("2", "maxRetries is 2")]
)
def test_other_retries_than_one_are_allowed_and_advised_against(retries: object, said: str) -> None:
    (found,) = checked_manifests(_with(lambda d: spec(d).update(maxRetries=retries)), FILLING)
    (line,) = advice(found)
    assert (line.startswith("job default: maxRetries"), said in line, "1 is recommended" in line) == (True, True, True)


def test_a_name_that_is_there_twice_is_refused() -> None:
    text = JOBS_FILE.read_text(encoding="utf-8")
    with pytest.raises(SettingsError, match=r"fanout/weight is there twice in one mapping: leave one .*line"):
        read_manifests(text.replace('fanout/weight: "4"', 'fanout/weight: "4"\n    fanout/weight: "5"'))


def test_fields_that_are_nothing_like_ours_pass() -> None:
    """New ones of Cloud Run must not need a release."""

    def change(document: dict[str, Any]) -> None:
        document["spec"]["priorityTier"] = "high"
        spec(document).update(gpuZonalRedundancyDisabled=True, shareProcessNamespace=True)
        spec(document)["containers"][0] |= {"lifecycle": {"preStop": {}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
        spec(document)["volumes"] = [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]
        spec(document)["containers"][0]["env"].append({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "latest"}}})
        _limits(document, **{"nvidia.com/gpu": "1", "memory": "80Gi", "cpu": "20"})

    assert checked_manifests(_with(change), FILLING)


def test_a_rule_of_one_document_and_the_shape_of_another_are_told_together() -> None:
    first, second, third, dead = documents()
    first["metadata"].pop("name")
    spec(second)["maxRetrys"] = 1
    _env(second, "CONCURENCY", "8")
    second["metadata"]["annotations"]["fanout/weight"] = "0"
    _env(third, "ACCEPT", "raw")
    spec(dead)["containers"][0]["command"][-1] = "dead-leters"
    with pytest.raises(SettingsError) as caught:
        checked_manifests(yaml.safe_dump_all([first, second, third, dead]), FILLING)
    starts = [
        "document 1: metadata.name",
        "job default: spec",
        "job default: metadata.annotations[fanout/weight]",
        "job default: env CONC",
        "job bulk: env ACCEPT",
        "job dead-letters: command",
    ]
    assert [problem.startswith(start) for problem, start in zip(caught.value.problems, starts, strict=True)] == [True] * 6


def test_settings_reach_the_workers_container_alone_and_the_original_stays() -> None:
    sidecar = {"name": "proxy", "image": "sidecar", "env": [{"name": "A", "value": "1"}]}

    def change(document: dict[str, Any]) -> None:
        spec(document)["containers"].insert(0, sidecar)
        spec(document)["containers"][1] |= {"name": "main"}
        document["metadata"]["annotations"] |= {"fanout/accept": "raw, envelope", "fanout/default-type": "note"}

    (found,) = read_manifests(_with(change))
    before = copy.deepcopy(found.document)
    made = completed(found, Filling(bucket="b", env={"EXTRA": "1"}, image="image:1"))
    beside, worker = made.containers
    assert (beside, worker["image"]) == (sidecar, "image:1")
    added = {"BUCKET_NAME": "b", "EXTRA": "1", "ACCEPT": "raw, envelope", "DEFAULT_TYPE": "note"}
    assert all({"name": name, "value": value} in worker["env"] for name, value in added.items())
    assert "EVENT_TYPES" not in {one["name"] for one in worker["env"]}
    assert found.document == before
    assert completed(found, Filling()).containers[0] == sidecar


def test_placeholders_are_found_and_filled() -> None:
    found = read_manifests(JOBS_FILE.read_text(encoding="utf-8"))[1]
    assert [line.split(":")[1].split("=")[0].strip() for line in left_open(found)] == [
        "serviceAccountName 'fanout-worker@PROJECT.iam.gserviceaccount.com' has placeholders",
        "env GOOGLE_CLOUD_PROJECT",
        "env BUCKET_NAME",
        "image 'REGION-docker.pkg.dev/PROJECT/fanout/fanout' has placeholders",
    ]
    made = completed(found, Filling("my-project", "my-bucket", image="us-central1-docker.pkg.dev/my-project/fanout/fanout:1"))
    assert left_open(made) == []
    assert completed(made, Filling("other", "other")) == made
    assert made.job.service_account == "fanout-worker@my-project.iam.gserviceaccount.com"
    of_a_domain = completed(found, Filling("example.com:my-project", "my-bucket", image="i"))
    assert of_a_domain.job.service_account == "fanout-worker@my-project.example.com.iam.gserviceaccount.com"


def test_rendered_yaml_is_the_same_manifest() -> None:
    for found in read_manifests(JOBS_FILE.read_text(encoding="utf-8")):
        assert read_manifests(rendered(found)) == (found,)


def test_the_order_of_names_is_no_change() -> None:
    """`gcloud run jobs describe --format=export` writes them by the alphabet."""
    deployed, sorted_one = documents()[1], documents()[1]
    for document, source in ((deployed, {"name": "s", "key": "latest"}), (sorted_one, {"key": "latest", "name": "s"})):
        spec(document)["containers"][0]["env"].append({"name": "A", "valueFrom": {"secretKeyRef": source}})
    assert differences(deployed, sorted_one) == []
    spec(sorted_one)["containers"][0]["env"][-1]["valueFrom"]["secretKeyRef"]["key"] = "2"
    (change,) = differences(deployed, sorted_one)
    assert change.after == "{valueFrom: {secretKeyRef: {key: 2, name: s}}}"


def test_changes_are_named_by_path() -> None:
    deployed = documents()[1]
    wanted = copy.deepcopy(deployed)
    wanted["metadata"]["annotations"] |= {"fanout/max-workers": "7", "fanout/paused": "true"}
    del wanted["metadata"]["annotations"]["fanout/weight"]
    _env(wanted, "CONCURRENCY", "9")
    assert [str(change) for change in differences(deployed, wanted)] == [
        "~ metadata.annotations[fanout/max-workers]: 100 -> 7",
        "+ metadata.annotations[fanout/paused]: true",
        "- metadata.annotations[fanout/weight]: 2",
        "~ spec.template.spec.template.spec.containers[0].env[CONCURRENCY]: 8 -> 9",
    ]


def test_what_the_service_adds_is_no_difference() -> None:
    wanted = documents()[1]
    del spec(wanted)["serviceAccountName"]
    deployed = copy.deepcopy(wanted)
    deployed["status"] = {"conditions": []}
    deployed["metadata"] |= {"uid": "1", "generation": 3, "namespace": "123"}
    deployed["metadata"]["labels"] |= {"cloud.googleapis.com/location": "us-central1", "run.googleapis.com/lastUpdatedTime": "x"}
    deployed["metadata"]["annotations"] |= {"run.googleapis.com/creator": "a@b", "serving.knative.dev/creator": "a@b"}
    deployed["spec"]["template"]["spec"] |= {"taskCount": 1, "parallelism": 0}
    spec(deployed).update(timeoutSeconds="3600", serviceAccountName="123-compute@developer.gserviceaccount.com")
    spec(deployed)["containers"][0]["name"] = "fanout-1"
    assert differences(deployed, wanted) == []
    spec(deployed)["serviceAccountName"] = "worker@p.iam.gserviceaccount.com"
    assert [change.after for change in differences(deployed, wanted)] == [None]


SETTINGS = {
    "run.googleapis.com/vpc-access-connector": "projects/p/locations/r/connectors/c",
    "run.googleapis.com/network-interfaces": '[{"network":"n"}]',
    "run.googleapis.com/vpc-access-egress": "all-traffic",
    "run.googleapis.com/cloudsql-instances": "p:r:i",
    "run.googleapis.com/execution-environment": "gen1",
    "run.googleapis.com/gpu-zonal-redundancy-disabled": "true",
    "run.googleapis.com/encryption-key": "projects/p/locations/r/keyRings/k/cryptoKeys/c",
    "run.googleapis.com/launch-stage": "BETA",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_a_job_is_shown_both_ways(name: str) -> None:
    wanted, deployed = documents()[1], documents()[1]
    below = deployed["spec"]["template"].setdefault("metadata", {}).setdefault("annotations", {})
    below[name] = SETTINGS[name]
    path = f"spec.template.metadata.annotations[{name}]"
    assert [str(one) for one in differences(deployed, wanted)] == [f"- {path}: {SETTINGS[name]}"]
    assert [str(one) for one in differences(wanted, deployed)] == [f"+ {path}: {SETTINGS[name]}"]
    below[name] = "gen2" if name.endswith("execution-environment") else ""
    assert all(one.before == "" for one in differences(deployed, wanted))


def test_delays_and_volumes_are_shown() -> None:
    wanted, deployed = documents()[1], documents()[1]
    deployed["spec"]["delayExecution"] = "true"
    spec(deployed)["volumes"] = [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": "w", "mountPath": "/a"}, {"name": "w", "mountPath": "/b"}]
    spec(deployed)["containers"][0]["volumeMounts"] = mounts
    assert [one.short for one in differences(deployed, wanted)] == [
        "- spec.delayExecution: true",
        "- containers[0].volumeMounts[/a].mountPath: /a",
        "- containers[0].volumeMounts[/a].name: w",
        "- containers[0].volumeMounts[/b].mountPath: /b",
        "- containers[0].volumeMounts[/b].name: w",
        "- volumes[v].name: v",
        "- volumes[v].secret.secretName: s",
        "- volumes[w].emptyDir.medium: Memory",
        "- volumes[w].name: w",
    ]
    wanted["spec"]["delayExecution"] = True
    assert "delayExecution" not in str(differences(deployed, wanted))


def test_containers_are_told_apart_by_their_names() -> None:
    deployed, wanted = documents()[1], documents()[1]
    spec(deployed)["containers"][0]["name"] = "default-1"  # as Cloud Run names one that has none
    spec(wanted)["containers"][0]["name"] = "worker"
    spec(wanted)["containers"].append({"name": "proxy", "image": "envoy"})
    added = ["+ containers[proxy].image: envoy", "+ containers[proxy].name: proxy"]
    assert [one.short for one in differences(deployed, wanted)] == ["~ containers[0].name: default-1 -> worker", *added]
    spec(deployed)["containers"][0]["name"] = "worker"
    assert [one.short for one in differences(deployed, wanted)] == added
    spec(wanted)["containers"].reverse()
    assert [one.short for one in differences(deployed, wanted)] == added
    assert [one.short for one in differences(wanted, deployed)] == [line.replace("+", "-") for line in added]


def test_a_limit_in_another_unit_is_the_same() -> None:
    deployed, wanted = documents()[1], documents()[1]
    _limits(deployed, cpu="1000m", memory="1024Mi")
    assert differences(deployed, wanted) == []
    _limits(deployed, cpu="2000m")
    assert [one.short for one in differences(deployed, wanted)] == ["~ containers[0].resources.limits.cpu: 2000m -> 1"]


@pytest.mark.parametrize("empty", [[], {}, None])
def test_what_is_empty_is_no_difference(empty: object) -> None:
    deployed, wanted = documents()[1], documents()[1]
    spec(wanted)["containers"][0]["ports"] = empty
    assert differences(deployed, wanted) == []
    spec(deployed)["containers"][0]["env"].append({"name": "EMPTY"})
    _env(wanted, "EMPTY", "")
    assert differences(deployed, wanted) == []
    spec(wanted)["containers"][0]["env"] = []
    assert {change.after for change in differences(deployed, wanted)} == {None}


def test_all_fields_of_a_new_job_are_added() -> None:
    changes = differences(None, documents()[1])
    assert changes
    assert {change.before for change in changes} == {None}


@pytest.mark.parametrize("name", ["my job", "-x", "a;b", "Upper", "x" * 64, "line\nbreak", "ends-"])
def test_a_name_that_cloud_run_refuses_is_refused_before_anything_is_made_of_it(name: str) -> None:
    document = {"apiVersion": "run.googleapis.com/v1", "kind": "Job", "metadata": {"name": name, "labels": {"fanout-lane": "a"}}}
    with pytest.raises(SettingsError, match="small letters, digits and hyphens, a letter first"):
        read_manifests(yaml.safe_dump(document))
