"""The controller as an HTTP service: Cloud Scheduler posts to `/tick`. Overlapping ticks are harmless, so nothing here locks."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from batch.errors import DependencyError, SettingsError
from controller import logs
from controller.tick import Outside, tick_lanes


def create_app(outside: Outside) -> FastAPI:
    """The service over one outside. Its endpoints are plain functions: they block, so each runs in a thread."""
    app = FastAPI(title="Fanout controller", docs_url=None, redoc_url=None)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/tick")
    def tick(lane: str = "") -> JSONResponse:
        """Tick one lane, or all. 200 whatever was decided: a hold is an answer, and a retry would change nothing. 404 for a lane that
        is none, 503 where the lanes could not even be found."""
        try:
            outcome = tick_lanes(outside, [lane] if lane else [])
        except SettingsError as error:
            return JSONResponse({"error": str(error)}, status_code=404)
        except DependencyError as error:
            logs.write("ERROR", f"no lane was ticked: {error}")
            return JSONResponse({"error": str(error)}, status_code=503)
        logs.write_round(outcome)
        return JSONResponse(logs.round_json(outcome))

    return app
