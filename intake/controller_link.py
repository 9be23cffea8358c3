"""The controller over HTTP: posts pokes, with an OIDC token where it is reached over https. Used by threads, never by the event loop."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import urlsplit

from batch.services.calls import user_agent
from intake.pokes import PokeFailed

CONNECT_S = 2.0
ANSWER_S = 10.0
"""The controller answers when the lane is ticked. What takes longer has been told all the same."""
TOKEN_S = 5.0


class ControllerLink:
    """One controller. `audience` is what its tokens are for."""

    def __init__(self, url: str, audience: str) -> None:
        self._url = f"{url}/pokes"
        self._audience = audience if urlsplit(url).scheme == "https" else ""
        self._credentials: Any = None
        self._lock = threading.Lock()
        self._local = threading.local()

    def post(self, body: bytes) -> None:
        """Raises PokeFailed."""
        from requests import ReadTimeout, RequestException

        headers = {"Content-Type": "application/json", "User-Agent": user_agent(), **self._authorization()}
        try:
            answer = self._session().post(self._url, data=body, headers=headers, timeout=(CONNECT_S, ANSWER_S), allow_redirects=False)
        except ReadTimeout:
            return  # it was sent; whether it is counted cannot be known, and sending it again would gain nothing
        except RequestException as error:
            raise PokeFailed(f"no answer from {self._url}: {type(error).__name__}") from error
        if answer.status_code != 200:
            raise PokeFailed(f"{self._url} answered {answer.status_code}: {_one_line(answer.text)}")
        unknown = _unknown(answer)
        if unknown:
            raise PokeFailed(f"{self._url} knows no lane with the topic {', '.join(unknown)}: compare LANES with the lanes' annotations")

    def _session(self) -> Any:
        """One for each thread, which keeps its connection."""
        from requests import Session

        if not hasattr(self._local, "session"):
            self._local.session = Session()
            # Neither a proxy of the environment nor a .netrc has a say in who we are to our own controller.
            self._local.session.trust_env = False
        return self._local.session

    def _authorization(self) -> dict[str, str]:
        if not self._audience:
            return {}
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
        from google.oauth2.id_token import fetch_id_token_credentials

        def request(url: str, method: str = "GET", **options: Any) -> Any:
            return Request()(url, method=method, **{**options, "timeout": TOKEN_S})

        try:
            with self._lock:
                if self._credentials is None:
                    self._credentials = fetch_id_token_credentials(self._audience, request=request)
                if not self._credentials.valid:
                    self._credentials.refresh(request)
                return {"Authorization": f"Bearer {self._credentials.token}"}
        except (GoogleAuthError, ValueError) as error:
            raise PokeFailed(f"no OIDC token for {self._audience}: {_one_line(str(error))}") from error


def _unknown(answer: Any) -> list[str]:
    try:
        return [str(one) for one in answer.json()["unknown"]]
    except (ValueError, KeyError, TypeError):
        return []


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
