"""A stand-in for the Google provider, which the real terraform talks to: it has the schema of provider.json, and calls nobody.

So terraform itself checks every name and type, decodes the data files, and expands each resource. What only Google would fill in has a
value that is known at once. It says nothing of what Google would refuse.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tests.deploy.terraform.extract import EXTRACT
from tests.deploy.terraform.wire import field, fields, unpacked

NUMBER = "123456789012"
PROVIDER = "registry.terraform.io/hashicorp/google"
LIST = 2
"""How blocks nest: as lists, of at most one element where the schema has one."""


def schema() -> dict[str, Any]:
    return dict(json.loads(EXTRACT.read_text(encoding="utf-8")))


def type_json(text: str) -> str:
    """`list(string)` as terraform's protocol writes it: `["list","string"]`."""
    outer, _, inner = text.partition("(")
    return f'["{outer}",{type_json(inner[:-1])}]' if inner else f'"{outer}"'


def block(of: Mapping[str, Any]) -> bytes:
    """A schema's block as a message."""
    out = b""
    required = of.get("required", ())
    for name, kind in of.get("attributes", {}).items():
        need = field(4, 1) if name in required else field(5, 1) + (field(6, 1) if name == "id" else b"")
        out += field(2, field(1, name) + field(2, type_json(kind)) + need)
    for name, kind in of.get("computed", {}).items():
        out += field(2, field(1, name) + field(2, type_json(kind)) + field(6, 1))
    for name, inner in of.get("blocks", {}).items():
        limits = (field(4, 1) if name in required else b"") + (b"" if inner.get("many") else field(5, 1))
        out += field(3, field(1, name) + field(2, block(inner)) + field(3, LIST) + limits)
    return out


def filled(kind: str, of: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A resource's values with what Google would fill in."""
    name = next((values[key] for key in ("name", "account_id", "role_id", "repository_id") if values.get(key)), kind)
    email = f"{name}@my-project.iam.gserviceaccount.com"
    ours = {
        "email": email,
        "member": f"serviceAccount:{email}",
        "uri": f"https://{name}-{NUMBER}.us-central1.run.app",
        "number": NUMBER,
        "name": {
            "google_service_account": f"projects/my-project/serviceAccounts/{email}",
            "google_project_iam_custom_role": f"projects/my-project/roles/{name}",
        }.get(kind, name),
    }
    for key, type_ in {**of.get("computed", {}), "id": "string"}.items():
        if values.get(key) is None:
            values[key] = ours.get(key, [] if type_.startswith("list") else 1 if type_ == "number" else name)
    return values


class Provider:
    """Answers each call of terraform's plugin protocol, version 5."""

    def __init__(self) -> None:
        self._schema = schema()

    def GetSchema(self, _: dict[int, bytes]) -> bytes:
        out = field(1, field(2, block({"attributes": {"project": "string", "region": "string"}})))
        for number, key in ((2, "resources"), (3, "data")):
            for name, of in self._schema[key].items():
                out += field(number, field(1, name) + field(2, field(2, block(of))))
        return out

    def PrepareProviderConfig(self, request: dict[int, bytes]) -> bytes:
        return field(1, request[1])

    def UpgradeResourceState(self, request: dict[int, bytes]) -> bytes:
        return field(1, field(2, fields(request[3])[1]))

    def ReadResource(self, request: dict[int, bytes]) -> bytes:
        return field(1, request[2])

    def PlanResourceChange(self, request: dict[int, bytes]) -> bytes:
        name, proposed = request[1].decode(), unpacked(fields(request[3])[1])
        if proposed is None:
            return field(1, request[3])
        return field(1, field(2, json.dumps(filled(name, self._schema["resources"][name], proposed))))

    def ApplyResourceChange(self, request: dict[int, bytes]) -> bytes:
        return field(1, request[3])

    def ReadDataSource(self, request: dict[int, bytes]) -> bytes:
        name, asked = request[1].decode(), unpacked(fields(request[2])[1])
        return field(1, field(2, json.dumps(filled(name, self._schema["data"][name], asked))))


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = details.method.lstrip("/").partition("/")
        if service != "tfplugin5.Provider":
            return None  # streams beside it, which would each hold a thread
        answer: Callable[[dict[int, bytes]], bytes] = getattr(self._provider, method, lambda _: b"")
        return grpc.unary_unary_rpc_method_handler(lambda request, _: answer(fields(request)))


@contextmanager
def provider() -> Iterator[dict[str, str]]:
    """Serve it; yields the environment in which terraform finds it."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Calls(Provider())])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    where = {
        "Protocol": "grpc",
        "ProtocolVersion": 5,
        "Pid": os.getpid(),
        "Test": True,
        "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
    }
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps({PROVIDER: where}), "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
    finally:
        server.stop(None).wait()
