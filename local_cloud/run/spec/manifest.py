"""Job specs in the Knative-style JSON of the v1 API, which is also that of the manifests in YAML: reading and writing.

A spec that is read and written again means the same: a client that compares a manifest with the platform's copy sees no change.
"""

from __future__ import annotations

from collections.abc import Mapping

from local_cloud.run.spec.fields import Fields
from local_cloud.run.spec.template import DEFAULT_MAX_RETRIES, DEFAULT_TASK_COUNT, Container, Env, JobSpec, SecretRef, Template
from local_cloud.run.spec.validation import is_system

API_VERSION = "run.googleapis.com/v1"
_CONTAINER_EXTRAS = frozenset(
    {
        "envFrom",
        "imagePullPolicy",
        "livenessProbe",
        "ports",
        "readinessProbe",
        "securityContext",
        "startupProbe",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "volumeMounts",
        "baseImageUri",
        "buildInfo",
        "dependsOn",
    }
)
_CONTAINER_KEYS = frozenset({"name", "image", "command", "args", "env", "resources", "workingDir"})
_TASK_EXTRAS = frozenset({"volumes", "nodeSelector"})
_TASK_KEYS = frozenset({"containers", "maxRetries", "timeoutSeconds", "serviceAccountName"})
_METADATA_KEYS = frozenset(
    {
        "annotations",
        "clusterName",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
_TOP_KEYS = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


def read_spec(job: Fields) -> JobSpec:
    """A whole manifest; notes unknown fields and wrong kinds, not broken rules."""
    job.only(_TOP_KEYS)
    if job.text("apiVersion", API_VERSION) != API_VERSION:
        job.problems.add("apiVersion", job.raw["apiVersion"], f"must be {API_VERSION}")
    if job.text("kind", "Job") != "Job":
        job.problems.add("kind", job.raw["kind"], "must be Job")
    metadata = job.child("metadata")
    metadata.only(_METADATA_KEYS)
    spec = job.child("spec")
    spec.only(frozenset({"template", "delayExecution"}))
    annotations = metadata.text_map("annotations")
    return JobSpec(
        template=_read_template(spec.child("template")),
        labels={key: value for key, value in metadata.text_map("labels").items() if not is_system(key)},
        annotations={key: value for key, value in annotations.items() if not is_system(key)},
        system_annotations={key: value for key, value in annotations.items() if is_system(key)},
        delay_execution=spec.text("delayExecution"),
    )


def _read_template(node: Fields) -> Template:
    node.only(frozenset({"metadata", "spec"}))
    execution = node.child("spec")
    execution.only(frozenset({"parallelism", "taskCount", "template"}))
    outer = execution.child("template")
    outer.only(frozenset({"spec", "metadata"}))
    task = outer.child("spec")
    task.only(_TASK_KEYS | _TASK_EXTRAS)
    metadata = node.child("metadata")
    metadata.only(_METADATA_KEYS)
    return Template(
        containers=tuple(read_container(child, _CONTAINER_EXTRAS) for child in task.items("containers")),
        parallelism=execution.count("parallelism", 0),
        task_count=execution.count("taskCount", DEFAULT_TASK_COUNT),
        max_retries=task.count("maxRetries", DEFAULT_MAX_RETRIES),
        timeout_s=float(task.count("timeoutSeconds", 600)),
        service_account=task.text("serviceAccountName"),
        labels=metadata.text_map("labels"),
        annotations=metadata.text_map("annotations"),
        extras={key: task.raw[key] for key in _TASK_EXTRAS if task.has(key)},
    )


def read_container(node: Fields, extras: frozenset[str]) -> Container:
    """A container of either API: v1 and v2 give these fields the same names."""
    node.only(_CONTAINER_KEYS | extras)
    return Container(
        name=node.text("name"),
        image=node.text("image"),
        command=node.texts("command"),
        args=node.texts("args"),
        env=read_env(node),
        limits=node.child("resources").text_map("limits"),
        working_dir=node.text("workingDir"),
        extras={key: node.raw[key] for key in extras if node.has(key)},
    )


def read_env(node: Fields) -> Env:
    """The `env` list of a container or an override."""
    found: list[tuple[str, str | SecretRef]] = []
    for child in node.items("env"):
        child.only(frozenset({"name", "value", "valueFrom", "valueSource"}))
        source = next((key for key in ("valueFrom", "valueSource") if child.has(key)), "")
        found.append((child.text("name"), _read_secret(child.child(source)) if source else child.text("value")))
    return tuple(found)


def _read_secret(source: Fields) -> SecretRef:
    """v1 says `name` and `key`, v2 `secret` and `version`."""
    source.only(frozenset({"secretKeyRef"}))
    ref = source.child("secretKeyRef")
    name, version = ("secret", "version") if source.path.endswith("valueSource") else ("name", "key")
    ref.only(frozenset({name, version}))
    return SecretRef(ref.text(name), ref.text(version) or "latest")


def write_spec(job: JobSpec) -> dict[str, object]:
    """The `spec` of a job."""
    template = job.template
    metadata = _without_empty({"labels": dict(template.labels), "annotations": dict(template.annotations)})
    # Also when it is empty: gcloud needs this metadata.
    spec: dict[str, object] = {"template": {"metadata": metadata, "spec": write_execution_spec(template)}}
    return {**({"delayExecution": job.delay_execution} if job.delay_execution else {}), **spec}


def write_execution_spec(template: Template) -> dict[str, object]:
    """The `spec` of an execution, which is also `spec.template.spec` of its job."""
    execution: dict[str, object] = {"taskCount": template.task_count, "template": {"spec": write_task_spec(template)}}
    if template.parallelism:
        execution["parallelism"] = template.parallelism
    return execution


def write_task_spec(template: Template) -> dict[str, object]:
    """`timeoutSeconds` is a string, as the real API writes 64-bit numbers."""
    task = {
        "containers": [write_container(container) for container in template.containers],
        "maxRetries": template.max_retries,
        "timeoutSeconds": f"{template.timeout_s:.0f}",
        **template.extras,
    }
    if template.service_account:
        task["serviceAccountName"] = template.service_account
    return task


def write_container(container: Container, *, v2: bool = False) -> dict[str, object]:
    return _without_empty(
        {
            "name": container.name,
            "image": container.image,
            "command": list(container.command),
            "args": list(container.args),
            "env": [_write_variable(name, value, v2) for name, value in container.env],
            "resources": _without_empty({"limits": dict(container.limits)}),
            "workingDir": container.working_dir,
            **container.extras,
        }
    )


def _write_variable(name: str, value: str | SecretRef, v2: bool) -> dict[str, object]:
    if isinstance(value, str):
        return {"name": name, "value": value}
    if v2:
        return {"name": name, "valueSource": {"secretKeyRef": {"secret": value.name, "version": value.version}}}
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.name, "key": value.version}}}


def _without_empty(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value not in ("", [], {})}


def write_manifest(name: str, spec: JobSpec) -> dict[str, object]:
    """A whole manifest, as a person would apply it."""
    metadata = {"name": name, "labels": dict(spec.labels), "annotations": {**spec.annotations, **spec.system_annotations}}
    return {"apiVersion": API_VERSION, "kind": "Job", "metadata": _without_empty(metadata), "spec": write_spec(spec)}
