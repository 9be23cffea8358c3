"""The deployed jobs as manifests, through the API that `gcloud run jobs replace` uses: read, create, replace."""

from __future__ import annotations

from typing import Any

from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError
from controller.lanes.manifests import Document, Manifest
from controller.observe.google_jobs import no_answer

TIMEOUT_S = 60.0


class ManifestRefused(FanoutError):
    """Cloud Run did not accept a manifest; the message is its own."""


class DeployedJobs:
    """The jobs of one project and region. Raises DependencyError."""

    def __init__(self, project: str, region: str, *, emulator_url: str = "") -> None:
        """`emulator_url`, such as `http://127.0.0.1:1234`, is called without credentials."""
        import requests

        self._base = emulator_url.rstrip("/") or f"https://{region}-run.googleapis.com"
        self._emulated = bool(emulator_url)
        self._project = project
        self._jobs_url = f"{self._base}/apis/run.googleapis.com/v1/namespaces/{project}/jobs"
        self._session = requests.Session() if emulator_url else authorized_session()

    def read(self, name: str) -> Document | None:
        """The manifest of a job; None if it does not exist."""
        status, body = self._call("GET", f"{self._jobs_url}/{name}", f"read job {name}")
        return None if status == 404 else body

    def apply(self, manifest: Manifest, *, exists: bool) -> Document:
        """Create the job, or replace it. Raises ManifestRefused."""
        document = {**manifest.document, "metadata": {**manifest.document["metadata"], "namespace": self._project}}
        what = f"apply job {manifest.name}"
        if exists:
            status, body = self._call("PUT", f"{self._jobs_url}/{manifest.name}", what, document)
        else:
            status, body = self._call("POST", self._jobs_url, what, document)
        if status == 404:
            raise DependencyMissing(f"cannot {what}: {_message(body)}; compare GOOGLE_CLOUD_PROJECT and REGION")
        return body

    def close(self) -> None:
        self._session.close()

    def _call(self, method: str, url: str, what: str, document: Document | None = None) -> tuple[int, Document]:
        """Status and body; statuses other than 2xx and 404 are raised."""
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import ConnectionError as NotConnected
        from requests.exceptions import RequestException, Timeout

        try:
            response = self._session.request(method, url, json=document, timeout=TIMEOUT_S)
        except GoogleAuthError as error:
            raise DependencyForbidden(f"cannot {what}: {error}; log in with `gcloud auth application-default login`") from error
        except (NotConnected, Timeout) as error:
            raise DependencyUnavailable(f"cannot {what}: {no_answer(self._base, error, emulated=self._emulated)}") from error
        except RequestException as error:
            raise DependencyUnavailable(f"cannot {what}: {type(error).__name__}: {error}") from error
        status, body = int(response.status_code), _body(response)
        if status in (401, 403):
            raise DependencyForbidden(f"cannot {what}: {_message(body)}; roles/run.developer is needed")
        if status == 429 or status >= 500:
            raise DependencyUnavailable(f"cannot {what}: HTTP {status}: {_message(body)}; try again")
        if status >= 400 and status != 404:
            raise ManifestRefused(f"cannot {what}: Cloud Run refused the manifest: {_message(body)}")
        return status, body


def authorized_session() -> Any:
    """Calls Google's APIs with the credentials of the environment."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return AuthorizedSession(credentials)


def _body(response: Any) -> Document:
    try:
        body = response.json()
    except ValueError:
        return {"message": str(response.text)[:500]}
    return body if isinstance(body, dict) else {"message": str(body)[:500]}


def _message(body: Document) -> str:
    error = body.get("error")
    return str(error.get("message") if isinstance(error, dict) else body.get("message", body))[:1000]
