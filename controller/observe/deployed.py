"""The deployed jobs as documents of the v1 API, which `gcloud run jobs replace` uses too: list, read, create, replace, change.

The v2 API and its client leave out what they do not know, such as delayed execution, and would take it away from a job that is read and
written back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError
from batch.services.calls import user_agent
from controller.observe.job_documents import Document
from controller.observe.refusals import no_answer

TIMEOUT_S = 60.0
PAGE = 100
CHANGE_TRIES = 5
_TAG = re.compile(r"<[^>]*>")


class ManifestRefused(FanoutError):
    """Cloud Run did not accept a manifest; the message is its own."""


class JobChanged(ManifestRefused):
    """Somebody else changed the job since it was read."""


class DeployedJobs:
    """The jobs of one project and region. Safe from any thread. Raises DependencyError."""

    def __init__(self, project: str, region: str, *, emulator_url: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """`emulator_url`, such as `http://127.0.0.1:1234`, is called without credentials."""
        import requests

        self._base = emulator_url.rstrip("/") or f"https://{region}-run.googleapis.com"
        self._emulated = bool(emulator_url)
        self._project, self._region, self._timeout_s = project, region, timeout_s
        host = f"http://{region}-run.local" if emulator_url else self._base
        self._jobs_url = f"{host}/apis/run.googleapis.com/v1/namespaces/{project}/jobs"
        self._session = named(requests.Session()) if emulator_url else authorized_session()
        if emulator_url:
            # The name of the host tells the region, as that of the real one does; the emulator answers to it as a proxy.
            self._session.proxies, self._session.trust_env = {"http": self._base}, False

    def list(self) -> Iterator[Document]:
        """The documents of all jobs, page by page."""
        what, token = f"list the jobs of project {self._project}, region {self._region}", ""
        while True:
            _, body = self._call("GET", f"{self._jobs_url}?limit={PAGE}&continue={quote(token)}", what)
            items, metadata = body.get("items", []), body.get("metadata", {})
            if body.get("kind") != "JobList" or not isinstance(items, list) or not isinstance(metadata, dict):
                raise self._unreadable(what, body)
            yield from (self._checked(one, what) for one in items)
            token = str(metadata.get("continue") or "")
            if not token:
                return

    def read(self, name: str, what: str = "") -> Document | None:
        """The manifest of a job; None if it does not exist. `what` completes "cannot", where the call serves something larger."""
        what = what or f"read job {name}"
        status, body = self._call("GET", f"{self._jobs_url}/{name}", what)
        return None if status == 404 else self._checked(body, what)

    def change(self, name: str, edit: Callable[[Document], None], what: str) -> None:
        """Read the job, edit its document, and write it back as a whole; if somebody else has changed it in between, it is read again.
        `what` completes "cannot". Raises DependencyMissing, ManifestRefused."""
        for try_number in range(1, CHANGE_TRIES + 1):
            document = self.read(name, what)
            if document is None:
                raise DependencyMissing(f"cannot {what}: it does not exist; compare GOOGLE_CLOUD_PROJECT and REGION")
            document.pop("status", None)
            edit(document)
            try:
                self.apply(name, document, exists=True, what=what)
                return
            except JobChanged:
                if try_number == CHANGE_TRIES:
                    raise

    def apply(self, name: str, document: Document, *, exists: bool, what: str = "") -> Document:
        """Create the job, or replace it: the one that was read, where the document has its resourceVersion. Raises ManifestRefused,
        JobChanged."""
        document = {**document, "metadata": {**document["metadata"], "namespace": self._project}}
        what = what or f"apply job {name}"
        if exists:
            status, body = self._call("PUT", f"{self._jobs_url}/{name}", what, document)
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
            response = self._session.request(method, url, json=document, timeout=self._timeout_s)
        except GoogleAuthError as error:
            raise DependencyForbidden(f"cannot {what}: {error}; log in with `gcloud auth application-default login`") from error
        except (NotConnected, Timeout) as error:
            raise DependencyUnavailable(f"cannot {what}: {no_answer(self._base, error, emulated=self._emulated)}") from error
        except RequestException as error:
            raise DependencyUnavailable(f"cannot {what}: {type(error).__name__}: {error}") from error
        status, body = int(response.status_code), _body(response)
        if status in (401, 403):
            raise DependencyForbidden(f"cannot {what}: {_refused(_message(body))}")
        if status == 429 or status >= 500:
            raise DependencyUnavailable(f"cannot {what}: HTTP {status}: {_message(body)}; try again")
        if status == 409:
            raise JobChanged(f"cannot {what}: somebody else changed it at the same time ({_message(body)}); try again")
        if status >= 400 and status != 404:
            raise ManifestRefused(f"cannot {what}: Cloud Run refused the manifest: {_message(body)}")
        return status, body

    def _checked(self, document: object, what: str) -> Document:
        """A job's document. Raises DependencyUnavailable where it is something else."""
        if isinstance(document, dict) and isinstance(document.get("metadata"), dict) and isinstance(document.get("spec"), dict):
            return document
        raise self._unreadable(what, document)

    def _unreadable(self, what: str, body: object) -> DependencyUnavailable:
        shown = " ".join(str(body).split())[:200]
        return DependencyUnavailable(f"cannot {what}: the answer of {self._base} cannot be read, is that Cloud Run? ({shown})")


def authorized_session() -> Any:
    """Calls Google's APIs with the credentials of the environment."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return named(AuthorizedSession(credentials))


def named(session: Any) -> Any:
    """The session, whose requests say who calls."""
    session.headers["User-Agent"] = user_agent()
    return session


def _refused(message: str) -> str:
    """Why, and what to grant. An account that does not exist is refused as one that the caller may not use."""
    if "actas" not in message.lower():
        return f"{message}; roles/run.developer is needed"
    return (
        f"{message}; look whether the account of serviceAccountName exists (`gcloud iam service-accounts list`), create it (`gcloud iam "
        "service-accounts create NAME`) or name another one; on it, roles/iam.serviceAccountUser is needed"
    )


def _body(response: Any) -> Document:
    try:
        body = response.json()
    except ValueError:
        text = str(response.text)
        # A load balancer answers with a page.
        return {"message": " ".join(_TAG.sub(" ", text).split())[:500] if text.lstrip().startswith("<") else text[:500]}
    return body if isinstance(body, dict) else {"message": str(body)[:500]}


def _message(body: Document) -> str:
    error = body.get("error")
    return str(error.get("message") if isinstance(error, dict) else body.get("message", body))[:1000]
