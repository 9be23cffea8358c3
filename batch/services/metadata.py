"""The project's id from the metadata server, which answers on Google Cloud alone. It is asked only where nothing else names the project."""

from __future__ import annotations

from collections.abc import MutableMapping

from batch.events import log

PROJECT = "GOOGLE_CLOUD_PROJECT"
SERVER = "GCE_METADATA_HOST"
EMULATORS = ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
TIMEOUT_S = 1.0
TRIES = 3


def name_project(environment: MutableMapping[str, str]) -> None:
    """Set GOOGLE_CLOUD_PROJECT where it is absent. With an emulator's address only a server that GCE_METADATA_HOST names is asked."""
    server = environment.get(SERVER, "")
    if environment.get(PROJECT) or (not server and any(environment.get(name) for name in EMULATORS)):
        return
    try:
        environment[PROJECT] = _project(server or "metadata.google.internal")
    except (OSError, ValueError) as error:
        log("project_not_named", error=f"{PROJECT} is not set, and no metadata server names the project: {error}")


def _project(server: str) -> str:
    """Raises OSError, ValueError for an answer that is not the metadata server's."""
    from http.client import HTTPConnection, HTTPException
    from socket import gaierror

    for tried in range(1, TRIES + 1):
        connection = HTTPConnection(server, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/computeMetadata/v1/project/project-id", headers={"Metadata-Flavor": "Google"})
            response = connection.getresponse()
            text = response.read(1000).decode("ascii", "replace").strip()
            if response.status == 200 and response.headers["Metadata-Flavor"] == "Google" and text:
                return text
            raise ValueError(f"{server} answered {response.status}, not as a metadata server does")
        except gaierror:
            raise  # there is no such name: not on Google Cloud
        except (OSError, HTTPException) as error:
            if tried == TRIES:
                raise OSError(f"{server} did not answer: {error or type(error).__name__}") from error
        finally:
            connection.close()
    raise AssertionError("the last try returns or raises")
