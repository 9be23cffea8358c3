"""What Google does by itself behind some requests: APIs that are enabled, agents that are made, builds that push, ready services."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from tests.deploy.recorder.answers import Refused, Unknown, not_found
from tests.deploy.recorder.record import Request
from tests.deploy.recorder.resources import PROJECT_NUMBER, Resource, Resources

AGENTS = {
    "pubsub.googleapis.com": "gcp-sa-pubsub",
    "run.googleapis.com": "serverless-robot-prod",
    "cloudscheduler.googleapis.com": "gcp-sa-cloudscheduler",
    "artifactregistry.googleapis.com": "gcp-sa-artifactregistry",
    "monitoring.googleapis.com": "gcp-sa-monitoring-notification",
}


class Google:
    """`enabled`: the APIs of each project that are on; `agents`: emails of service agents that exist."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.enabled: dict[str, set[str]] = {}
        self.agents: set[str] = set()
        self.builds: dict[str, Resource] = {}
        self.services: dict[tuple[str, str], Resource] = {}
        self.revisions: dict[tuple[str, str], Resource] = {}

    def agent(self, name: str) -> str:
        """The email of a service agent, which exists from then on."""
        email = f"service-{PROJECT_NUMBER}@{name}.iam.gserviceaccount.com"
        self.agents.add(email)
        return email

    def project(self, request: Request, name: str) -> Resource:
        if name == "projects" and request.method == "GET":
            return {"projects": []}
        project_id = name.split("/")[1]
        if request.method != "GET" or len(name.split("/")) != 2:
            raise Unknown
        return {"projectId": project_id, "projectNumber": PROJECT_NUMBER, "name": project_id, "lifecycleState": "ACTIVE"}

    def apis(self, request: Request, name: str) -> Resource:
        """serviceusage."""
        base, _, verb = name.partition(":")
        found = self.resources.operations.get(("serviceusage", name))
        if request.method == "GET" and found:
            return found
        parts = base.split("/")
        if parts[0] != "projects" or len(parts) not in (3, 4):
            raise Unknown
        on = self.enabled.setdefault(parts[1], set())
        if len(parts) == 3 and verb == "batchEnable":
            on |= set(request.body["serviceIds"])
            return self._done(request)
        if len(parts) == 3 and request.method == "GET":
            return {"services": [self._api(parts[1], one, on) for one in sorted(on)]} if on else {}
        if len(parts) != 4:
            raise Unknown
        if verb == "generateServiceIdentity" and parts[3] in AGENTS:
            return self._done(request, {"email": self.agent(AGENTS[parts[3]]), "uniqueId": "1"})
        if verb == "enable":
            on.add(parts[3])
            return self._done(request)
        if request.method == "GET" and not verb:
            return self._api(parts[1], parts[3], on)
        raise Unknown

    @staticmethod
    def _api(project: str, api: str, on: set[str]) -> Resource:
        state = "ENABLED" if api in on else "DISABLED"
        return {"name": f"projects/{project}/services/{api}", "config": {"name": api}, "parent": f"projects/{project}", "state": state}

    def _done(self, request: Request, response: Resource | None = None) -> Resource:
        return self.resources.operation(request.api, f"operations/acf.{self.resources.number()}", response or {})

    def build(self, request: Request, name: str) -> Resource:
        """A build that succeeds at once, and whose images are in Artifact Registry then, with their tags."""
        found = self.resources.operations.get(("cloudbuild", name))
        if request.method == "GET" and found:
            return found
        parts = name.split("/")
        if parts[-2:-1] == ["builds"] and request.method == "GET":
            if parts[-1] not in self.builds:
                raise not_found(name)
            return self.builds[parts[-1]]
        if parts[-1] == "builds" and request.method == "GET":
            return {"builds": list(self.builds.values())}
        if parts[-1] != "builds" or request.method != "POST":
            raise Unknown
        build = self._built({**request.body}, parts[1])
        metadata = {"@type": "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata", "build": build}
        operation = self.resources.operation("cloudbuild", f"operations/build/{parts[1]}/{build['id']}", build)
        operation["metadata"] = metadata
        return operation

    def _built(self, build: Resource, project: str) -> Resource:
        values = {"PROJECT_ID": project, **build.get("substitutions", {})}
        images = []
        for template in build.get("images", []):
            image = str(template)
            for key in sorted(values, key=len, reverse=True):
                image = image.replace(f"${{{key}}}", values[key]).replace(f"${key}", values[key])
            if "$" in image:
                raise Refused(400, f"invalid image name {image!r}: a substitution is missing")
            images.append({"name": image, "digest": self._push(image)})
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        number = f"{self.resources.number():08d}-0000-4000-8000-000000000000"
        told = {"id": number, "projectId": project, "status": "SUCCESS", "createTime": now, "startTime": now, "finishTime": now}
        self.builds[number] = {**build, **told, "results": {"images": images}, "logUrl": f"https://console.local/{number}"}
        return self.builds[number]

    def _push(self, image: str) -> str:
        """The digest of an image `REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG`, which must have a repository."""
        path, _, tag = image.partition(":")
        host, project, repository, package = path.split("/", 3)
        parent = f"projects/{project}/locations/{host.removesuffix('-docker.pkg.dev')}/repositories/{repository}"
        self.resources.find("artifactregistry", parent)
        digest = f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
        name = f"{parent}/packages/{package}"
        kept = self.resources.kept
        kept[("artifactregistry", name)] = {"name": name}
        version = f"{name}/versions/{digest}"
        kept[("artifactregistry", version)] = {"name": version}
        label = f"{name}/tags/{tag or 'latest'}"
        kept[("artifactregistry", label)] = {"name": label, "version": version}
        return digest

    def all_services(self, project: str) -> Resource:
        """Of all regions."""
        kept = [one for (place, _), one in self.services.items() if place.endswith(f"/{project}")]
        return {"apiVersion": "serving.knative.dev/v1", "kind": "ServiceList", "metadata": {}, "items": kept}

    def service(self, request: Request, name: str) -> Any:
        """A Cloud Run service in its v1 form: ready as soon as it is written."""
        parts = name.split("/")
        if len(parts) < 3 or parts[2] not in ("services", "revisions", "configurations", "routes"):
            raise Unknown
        if len(parts) == 3 and request.method == "GET":
            kept = [one for (place, _), one in self.services.items() if place in (f"{request.region}/{parts[1]}",) or not request.region]
            if parts[2] == "revisions":
                kept = [one for (place, _), one in self.revisions.items() if place == f"{request.region}/{parts[1]}"]
            listed = kept if parts[2] in ("services", "revisions") else []
            return {"apiVersion": "serving.knative.dev/v1", "kind": "ServiceList", "metadata": {}, "items": listed}
        if parts[2] == "revisions" and (f"{request.region}/{parts[1]}", parts[3]) in self.revisions:
            return self.revisions[(f"{request.region}/{parts[1]}", parts[3])]
        if parts[2] != "services":
            raise not_found(name)
        place = f"{request.region}/{parts[1]}"
        if request.method == "POST" and len(parts) == 3:
            wanted = request.body["metadata"]["name"]
            if (place, wanted) in self.services:
                raise Refused(409, f"Resource '{wanted}' already exists.")
            return self._ready(place, parts[1], request.region, request.body)
        key = (place, parts[3])
        if key not in self.services:
            raise not_found(f"service {parts[3]}")
        if request.method == "PUT":
            return self._ready(place, parts[1], request.region, request.body)
        if request.method == "DELETE":
            del self.services[key]
            return {"apiVersion": "v1", "kind": "Status", "status": "Success"}
        if request.method == "GET":
            return self.services[key]
        raise Unknown

    def _ready(self, place: str, project: str, region: str, body: Resource) -> Resource:
        made: Resource = json.loads(json.dumps(body))
        name, metadata = made["metadata"]["name"], made["metadata"]
        if "containers" not in made["spec"]["template"]["spec"]:
            raise Refused(400, "spec.template.spec.containers is required")
        generation = int(self.services.get((place, name), {}).get("metadata", {}).get("generation", 0)) + 1
        revision = made["spec"]["template"].get("metadata", {}).get("name") or f"{name}-{generation:05d}-rec"
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        metadata |= {"namespace": project, "generation": generation, "resourceVersion": f"v{generation}", "creationTimestamp": now}
        metadata.setdefault("labels", {})["cloud.googleapis.com/location"] = region
        # gcloud waits for the operation that the answer names.
        operation = f"{self.resources.number():08d}-operation"
        metadata.setdefault("annotations", {})["run.googleapis.com/operation-id"] = operation
        url = f"https://{name}-{PROJECT_NUMBER}.{region}.run.app"
        conditions = [{"type": one, "status": "True", "lastTransitionTime": now} for one in ("Ready", "ConfigurationsReady", "RoutesReady")]
        made["spec"].setdefault("traffic", [{"percent": 100, "latestRevision": True}])
        template = made["spec"]["template"]
        labels = {"serving.knative.dev/service": name, "serving.knative.dev/configuration": name}
        self.revisions[(place, revision)] = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Revision",
            "metadata": {"name": revision, "namespace": project, "creationTimestamp": now, "labels": labels, "annotations": {}},
            "spec": template["spec"],
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]},
        }
        traffic = [{**one, "revisionName": one.get("revisionName") or revision} for one in made["spec"]["traffic"]]
        made["status"] = {
            "observedGeneration": generation,
            "conditions": conditions,
            "latestReadyRevisionName": revision,
            "latestCreatedRevisionName": revision,
            "traffic": traffic,
            "url": url,
            "address": {"url": url},
        }
        self.services[(place, name)] = made
        answer = {"@type": "type.googleapis.com/google.cloud.run.v1.Service", **made}
        waited = f"projects/{project}/locations/{region}/operations/{operation}"
        self.resources.operations["run", waited] = {"name": waited, "done": True, "response": answer}
        # Not ready yet: who asks again, or waits for the operation, finds that it is.
        starting = [{**one, "status": "Unknown"} for one in conditions]
        return {**made, "status": {**made["status"], "conditions": starting}}
