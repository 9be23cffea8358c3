"""The endpoint itself: an HTTP server on loopback, and the environment in which gcloud, and scripts that call it, use it."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from local_cloud.addresses import GCLOUD_HOST, Addresses
from local_cloud.gcloud import REGION
from tests.deploy.recorder.answers import Answer, Refused, Unknown, not_found
from tests.deploy.recorder.google import Google
from tests.deploy.recorder.kinds import POLICIES, matches
from tests.deploy.recorder.policies import Policies
from tests.deploy.recorder.record import Fault, Log, Request
from tests.deploy.recorder.resources import Resources

APIS = {
    "artifactregistry": "",
    "cloudbilling": "",
    "cloudbuild": "",
    "cloudkms": "",
    "cloudresourcemanager": "",
    "cloudscheduler": "",
    "compute": "compute/v1/",
    "iam": "",
    "iamcredentials": "",
    "logging": "",
    "monitoring": "",
    "orgpolicy": "",
    "pubsub": "",
    "run": "",
    "secretmanager": "",
    "serviceusage": "",
    "storage": "storage/v1/",
}
"""The APIs that gcloud is sent here for, each with what its address ends with."""
_HOST = re.compile(r"(?:([a-z]+-[a-z]+[0-9]+)-)?([a-z]+)\.local(?::80)?")
_VERSION = re.compile(r"/(?:compute/)?v[0-9]+(?:(?:alpha|beta)[0-9]*)?/(.+)")
_JOBS = re.compile(r"/apis/run\.googleapis\.com/v1/(.+)")
_SERVICES = re.compile(r"/apis/serving\.knative\.dev/v1/(.+)")
_UNKNOWN = 400
"""Not 501, on which gcloud would try again for minutes; the answer says UNIMPLEMENTED."""
_LOOPBACK = "127.0.0.1,localhost"


class Recorder:
    """A context manager. `requests`: all so far; `refused`: what it does not know; `left()`: what exists, of any kind.

    `addresses`: of the local cloud that serves Pub/Sub, Storage and Run's jobs.
    """

    def __init__(self, addresses: Addresses, project: str, folder: Path) -> None:
        self.addresses, self.project = addresses, project
        self.resources = Resources()
        self.google = Google(self.resources)
        self.policies = Policies(self._has_account)
        self.log = Log()
        self.folder = folder
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def requests(self) -> list[Request]:
        return self.log.requests

    @property
    def writes(self) -> list[str]:
        return [str(one) for one in self.requests if one.is_writing]

    @property
    def refused(self) -> list[str]:
        return self.log.refused

    def fail(self, method: str, pattern: str, status: int = 403, number: int = 1, message: str = "injected by the test") -> Fault:
        """The `number`-th request that matches fails, once."""
        fault = Fault(method, pattern, status, number, message)
        self.log.plan(fault)
        return fault

    @property
    def environment(self) -> dict[str, str]:
        """For gcloud, and for clients of Fanout, which go to the local cloud directly."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        overrides = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api.upper()}": f"http://{api}.local/{path}" for api, path in APIS.items()}
        return {
            **self.addresses.environment,
            "GOOGLE_CLOUD_PROJECT": self.project,
            "CLOUDSDK_CONFIG": str(self.folder),
            "CLOUDSDK_ACTIVE_CONFIG_NAME": "NONE",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
            "CLOUDSDK_CORE_PROJECT": self.project,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "True",
            "CLOUDSDK_CORE_CHECK_GCE_METADATA": "False",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "True",
            "CLOUDSDK_SURVEY_DISABLE_PROMPTS": "True",
            "CLOUDSDK_RUN_REGION": REGION,
            "CLOUDSDK_PROXY_TYPE": "http",
            "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
            "CLOUDSDK_PROXY_PORT": str(self._server.server_address[1]),
            "NO_PROXY": _LOOPBACK,
            "no_proxy": _LOOPBACK,
            **overrides,
        }

    def left(self) -> list[str]:
        """What exists here, but for enabled APIs; the local cloud knows about topics, subscriptions, buckets and jobs."""
        bindings = [
            f"{api} {name} {one['role']} {one['members']}"
            for (api, name), kept in self.policies.kept.items()
            for one in kept.get("bindings", ())
        ]
        with self._lock:
            return self.resources.left() + [f"run {name}" for _, name in self.google.services] + sorted(bindings)

    def answer(self, request: Request, headers: Mapping[str, str], target: str) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer to one request."""
        fault = self.log.add(request)
        if fault is not None:
            return _json(Refused(fault.status, fault.message).answer)
        try:
            if (name := self._passed_on(request)) is not None:
                return self._pass_on(request, headers, target, name)
            with self._lock:
                return _json(Answer(200, self._kept(request)))
        except Refused as error:
            return _json(error.answer)
        except Unknown:
            self.log.refuse(str(request))
            return _json(Refused(_UNKNOWN, f"the recording endpoint does not know {request}", "UNIMPLEMENTED").answer)

    def _kept(self, request: Request) -> Any:
        """What is kept here. Raises Refused or Unknown."""
        if request.api == "run" and (found := _SERVICES.fullmatch(request.path)):
            return self._service(request, found[1])
        version = _VERSION.fullmatch(request.path)
        if version is None:
            raise Unknown
        # gcloud names a service account below `projects/-` in some requests, and below its project in others.
        name = re.sub("^projects/-/serviceAccounts/", f"projects/{self.project}/serviceAccounts/", version[1])
        base, _, verb = name.partition(":")
        if verb in ("getIamPolicy", "setIamPolicy", "testIamPermissions"):
            return self._policy(request, base, verb)
        asked = (request.api, request.method, name)
        if asked == ("logging", "POST", "entries:list"):
            return {}
        if asked == ("iam", "POST", "permissions:queryTestablePermissions"):
            return {"permissions": []}
        if request.api == "cloudbilling" and matches("projects/*/billingInfo", name):
            return {**(request.body or {}), "name": name, "projectId": name.split("/")[1]}
        if request.api == "run" and verb == "wait" and ("run", base) in self.resources.operations:
            return self.resources.operations["run", base]
        if request.api == "run" and request.method == "GET" and matches("projects/*/locations/-/services", name):
            return self.google.all_services(name.split("/")[1])
        if request.api == "run" and matches("projects/*/locations", name):
            return {"locations": [{"name": f"{name}/{REGION}", "locationId": REGION}]}
        own = {"cloudresourcemanager": self.google.project, "serviceusage": self.google.apis, "cloudbuild": self.google.build}
        if request.api in own:
            return own[request.api](request, name)
        answer = self.resources.answer(request, name)
        if request.method == "DELETE":
            self.policies.forget(request.api, base)
        return answer

    def _service(self, request: Request, name: str) -> Any:
        if request.method in ("POST", "PUT"):
            self._check_secrets(request.body["spec"]["template"]["spec"], name.split("/")[1])
        answer = self.google.service(request, name)
        if request.method == "DELETE":
            parts = name.split("/")
            self.policies.forget("run", f"projects/{parts[1]}/locations/{request.region}/services/{parts[3]}")
        return answer

    def _check_secrets(self, spec: Any, project: str) -> None:
        """As Cloud Run does: a revision becomes ready only if its account may read the secrets that it names."""
        member = f"serviceAccount:{spec.get('serviceAccountName', '')}"
        for one in (variable for container in spec.get("containers", ()) for variable in container.get("env", ())):
            if secret := one.get("valueFrom", {}).get("secretKeyRef", {}).get("name"):
                bindings = self.policies.get("secretmanager", f"projects/{project}/secrets/{secret}").get("bindings", ())
                if not any(one["role"] == "roles/secretmanager.secretAccessor" and member in one["members"] for one in bindings):
                    raise Refused(400, f"Permission denied on secret: {secret} for Revision service account {member}.")

    def _policy(self, request: Request, name: str, verb: str) -> Any:
        if not any(api == request.api and matches(pattern, name) for api, pattern in POLICIES):
            raise Unknown
        self._check_there(request.api, name)
        if verb == "testIamPermissions":
            return {"permissions": request.body.get("permissions", [])}
        if verb == "getIamPolicy":
            return self.policies.get(request.api, name)
        return self.policies.set(request.api, name, request.body["policy"])

    def _check_there(self, api: str, name: str) -> None:
        """Raises Refused."""
        parts = name.split("/")
        if api == "pubsub" and self._status(self.addresses.pubsub_http, f"/v1/{name}") == 404:
            raise not_found(name)
        if api == "run":
            is_job = parts[4] == "jobs"
            there = (f"{parts[3]}/{parts[1]}", parts[5]) in self.google.services
            path = f"/v2/{name}"
            if not (self._status(self.addresses.run, path) == 200 if is_job else there):
                raise not_found(name)
        if api not in ("pubsub", "run", "cloudresourcemanager"):
            self.resources.find(api, name)

    def _has_account(self, email: str) -> bool:
        if email in self.google.agents:
            return True
        return any(one.get("email") == email for (api, _), one in self.resources.kept.items() if api == "iam")

    def _passed_on(self, request: Request) -> str | None:
        """The address of the local service that this request is for, if any."""
        is_policy = request.path.endswith((":getIamPolicy", ":setIamPolicy", ":testIamPermissions"))
        if request.api == "pubsub" and not is_policy:
            return self.addresses.pubsub_http
        if request.api == "run" and not is_policy and _JOBS.fullmatch(request.path):
            return self.addresses.run
        return self.addresses.storage if request.api == "storage" else None

    def _pass_on(self, request: Request, headers: Mapping[str, str], target: str, address: str) -> tuple[int, Mapping[str, str], bytes]:
        bucket = re.fullmatch(r"/storage/v1/b/([^/]+)(/iam(?:/testPermissions)?)?", request.path)
        if bucket and bucket[2]:
            return self._bucket_policy(request, bucket[1])
        agent = re.fullmatch(r"/storage/v1/projects/[^/]+/serviceAccount", request.path)
        if agent:
            return _json(Answer(200, {"kind": "storage#serviceAccount", "email_address": self.google.agent("gs-project-accounts")}))
        whole = address == self.addresses.run
        parts = urlsplit(target)
        to = target if whole else f"{parts.path}?{parts.query}" if parts.query else parts.path
        host = f"{request.region}-{GCLOUD_HOST}" if request.region and whole else GCLOUD_HOST if whole else urlsplit(address).netloc
        status, kept, body = _exchange(address, request.method, to, request.raw, {**headers, "Host": host})
        if request.method == "DELETE" and status < 300:
            with self._lock:
                self._forget(request, bucket[1] if bucket else "")
        return status, kept, body

    def _forget(self, request: Request, bucket: str) -> None:
        """The policy of what the local cloud has deleted."""
        job = _JOBS.fullmatch(request.path)
        if job:
            _, project, _, name = job[1].split("/")
            self.policies.forget("run", f"projects/{project}/locations/{request.region}/jobs/{name}")
        else:
            self.policies.forget(request.api, bucket or request.path.removeprefix("/v1/"))

    def _bucket_policy(self, request: Request, bucket: str) -> tuple[int, Mapping[str, str], bytes]:
        if self._status(self.addresses.storage, f"/storage/v1/b/{bucket}") == 404:
            raise not_found(f"b/{bucket}")
        with self._lock:
            if request.path.endswith("/testPermissions"):
                return _json(Answer(200, {"permissions": [request.query.get("permissions", "")]}))
            if request.method == "PUT":
                return _json(Answer(200, {"kind": "storage#policy", **self.policies.set("storage", bucket, request.body)}))
            return _json(Answer(200, {"kind": "storage#policy", **self.policies.get("storage", bucket)}))

    @staticmethod
    def _status(address: str, path: str) -> int:
        return _exchange(address, "GET", path, b"", {"Host": urlsplit(address).netloc})[0]


def _json(answer: Answer) -> tuple[int, Mapping[str, str], bytes]:
    return answer.status, {"Content-Type": "application/json"}, json.dumps(answer.body).encode()


_DROPPED = {
    "proxy-connection",
    "connection",
    "content-length",
    "transfer-encoding",
    "accept-encoding",
    "keep-alive",
    "host",
    "date",
    "server",
}


def _exchange(address: str, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name == "Host" or name.lower() not in _DROPPED:
                connection.putheader(name, value)
        if body or method not in ("GET", "HEAD", "DELETE"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _DROPPED}
        return answer.status, kept, answer.read()
    finally:
        connection.close()


def _handler_of(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *values: object) -> None:
            """Nothing: the recorder keeps the requests."""

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            host = _HOST.fullmatch(parts.netloc or self.headers.get("Host", ""))
            raw = self._body()
            if host is None or host[2] not in APIS:
                recorder.log.refuse(f"{self.command} {self.path}")
                self._send(*_json(Refused(_UNKNOWN, f"the recording endpoint does not know {self.command} {self.path}").answer))
                return
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            request = Request(self.command, host[2], host[1] or "", unquote(parts.path), query, raw)
            self._send(*recorder.answer(request, dict(self.headers.items()), self.path))

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_CONNECT = _serve

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            whole = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole

        def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and status not in (204, 304):
                self.wfile.write(body)

    return Handler
