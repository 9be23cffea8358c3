"""`/faults` on each service's HTTP side: adding faults, seeing which were met, and clearing them.

A request with anything unknown in it changes nothing; the answer says what would be accepted.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_cloud.faults.script import BadFault, Script, one_of, read_fault
from local_cloud.web.json_text import strict_json

_LIST_KEYS = {"project", "method", "faults"}
_RATE_KEYS = {"project", "method", "rate", "seed", "fault"}


def fault_routes(script: Script) -> list[Route]:
    """A refused request is answered with 400 and `{"error": …}`.

    - `POST /faults` `{"project", "method", "faults": [{"kind": "unavailable"}, …]}` or `{"project", "method", "rate": 0.1, "seed": 7,
      "fault": {"kind": …}}` → `{"id"}`. A fault without parameters may be just its name.
    - `GET /faults?project=P` → `{"faults": [{"id", "project", "method", "pending": [fault, …], "met": [{**fault, "count"}, …]}, …],
      "pending": <faults of lists not met>, "met": <faults met>}`; without a project: of all.
    - `DELETE /faults?project=P` forgets them and answers with their last report.
    """

    async def add(request: Request) -> JSONResponse:
        try:
            return JSONResponse({"id": _add(script, strict_json(await request.body()))})
        except ValueError as error:
            return _refused(error)

    def report(request: Request) -> JSONResponse:
        return JSONResponse(script.report(request.query_params.get("project")))

    def clear(request: Request) -> JSONResponse:
        project = request.query_params.get("project", "")
        if not project:
            return _refused(BadFault("say whose: DELETE /faults?project=P"))
        return JSONResponse(script.clear(project))

    return [
        Route("/faults", add, methods=["POST"]),
        Route("/faults", report, methods=["GET"]),
        Route("/faults", clear, methods=["DELETE"]),
    ]


def _refused(error: ValueError) -> JSONResponse:
    return JSONResponse({"error": f"/faults: {error}"}, status_code=400)


def _add(script: Script, body: object) -> str:
    if not isinstance(body, dict):
        raise BadFault(f"an object with project, method and faults is wanted, got {body!r}")
    known = _RATE_KEYS if "rate" in body else _LIST_KEYS
    for key in body:
        one_of("key", key, known)
    for key in sorted(known - {"seed"}):
        if key not in body:
            raise BadFault(f"{key} is missing; either project, method and faults, or project, method, rate, seed and fault")
    project, method = body["project"], body["method"]
    if not isinstance(project, str):
        raise BadFault(f"project is a project's id, got {project!r}")
    if known is _RATE_KEYS:
        rate, seed = body["rate"], body.get("seed", 0)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or isinstance(seed, bool) or not isinstance(seed, int):
            raise BadFault(f"rate is a number from 0 to 1 and seed a whole number, got {rate!r} and {seed!r}")
        return script.add_rate(project, method, float(rate), seed, read_fault(body["fault"]))
    if not isinstance(body["faults"], list):
        raise BadFault(f"faults is a list of faults, got {body['faults']!r}")
    return script.add_list(project, method, [read_fault(fault) for fault in body["faults"]])
