"""Makes provider.json anew: what the Google provider's schema says of the resource types that deploy/terraform uses.

    pip download --no-deps cdktf-cdktf-provider-google==16.12.1
    python -m tests.deploy.terraform.extract cdktf_cdktf_provider_google-16.12.1-py3-none-any.whl 2026-11-30

The package holds every attribute of the provider as types of another language; its summaries say which are blocks. It does not tell lists
from sets, nor optional attributes that the provider fills in from those that stay empty.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXTRACT = HERE / "provider.json"
USED = (
    "artifact_registry_repository",
    "artifact_registry_repository_iam_member",
    "cloud_run_v2_job_iam_member",
    "cloud_run_v2_service",
    "cloud_run_v2_service_iam_member",
    "cloud_scheduler_job",
    "logging_metric",
    "monitoring_alert_policy",
    "monitoring_dashboard",
    "project_iam_custom_role",
    "project_iam_member",
    "project_service",
    "pubsub_subscription",
    "pubsub_subscription_iam_member",
    "pubsub_topic",
    "pubsub_topic_iam_member",
    "service_account",
    "service_account_iam_member",
    "storage_bucket",
    "storage_bucket_iam_member",
)
DATA = ("data_google_project",)
NOT_THEIRS = {"connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"}
"""Terraform's own, which stand beside the provider's in a resource."""


def camel(snake: str) -> str:
    first, *rest = snake.split("_")
    return first + "".join(part.title() for part in rest)


def types_of(wheel: Path) -> dict[str, Any]:
    """The package's types by full name."""
    with zipfile.ZipFile(wheel) as files:
        inner = next(name for name in files.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(files.read(inner))) as archive:
            manifest = archive.extractfile("package/.jsii")
            assert manifest is not None
            return dict(json.load(manifest)["types"])


def words(kind: dict[str, Any]) -> str:
    """A type as Terraform writes it."""
    if "primitive" in kind:
        return {"boolean": "bool", "number": "number", "string": "string"}[kind["primitive"]]
    if "collection" in kind:
        inner = words(kind["collection"]["elementtype"])
        return f"{'list' if kind['collection']['kind'] == 'array' else 'map'}({inner})"
    if "union" in kind:
        return words(next(one for one in kind["union"]["types"] if one.get("fqn") != "cdktf.IResolvable"))
    return str(kind["fqn"])


def block(types: dict[str, Any], fqn: str, leave: Collection[str] = ()) -> dict[str, Any]:
    """Attributes by name with their type, `required` ones, and blocks the same way. A block that may come more than once has `many`."""
    found: dict[str, Any] = {"attributes": {}, "required": [], "blocks": {}}
    for each in types[fqn].get("properties", ()):
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", each["name"]).lower()
        named = re.search(r"/docs/[^#]*#(\w+) ", each["docs"].get("remarks", ""))
        name = named.group(1) if named else name
        if name in leave:
            continue
        kind = words(each["type"])
        if not each.get("optional"):
            found["required"].append(name)
        if each["docs"].get("summary") == f"{name} block.":
            inner = re.sub(r"^list\((.*)\)$", r"\1", kind)
            found["blocks"][name] = block(types, inner) | ({"many": True} if inner != kind else {})
        else:
            found["attributes"][name] = "dynamic" if kind.startswith("@") else kind
    return {key: value for key, value in found.items() if value}


def resource(types: dict[str, Any], name: str) -> dict[str, Any]:
    """A block, with what only the provider sets as `computed`."""
    module = camel(name)
    base = f"@cdktf/provider-google.{module}.{module[0].upper()}{module[1:]}"
    found = block(types, base + "Config", NOT_THEIRS)
    inputs = {each["name"].removesuffix("Input") for each in types[base]["properties"] if each["name"].endswith("Input")}
    computed = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", each["name"]).lower(): words(each["type"])
        for each in types[base]["properties"]
        if each["name"] not in inputs and not each["name"].endswith("Input") and not each.get("static") and "fqn" not in each["type"]
    }
    return found | {"computed": computed}


def main(wheel: str, date: str) -> None:
    types = types_of(Path(wheel))
    extract = {
        "source": "cdktf-cdktf-provider-google 16.12.1 of the Python Package Index: hashicorp/google 6.50.0",
        "read": date,
        "resources": {f"google_{name}": resource(types, name) for name in USED},
        "data": {name.removeprefix("data_"): resource(types, name) for name in DATA},
    }
    text = json.dumps(extract, indent=1, sort_keys=True)
    EXTRACT.write_text(
        re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
