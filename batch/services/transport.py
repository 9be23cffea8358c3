"""The way to Cloud Storage: one request with its retries, on pooled connections of urllib3, and all that is read once for them.

Endpoint, credentials, proxies and certificates are those that Google's client would use, for `requests` and google-auth find them; its own
way of sending scans the environment at each request and costs five times as much. A request ends in an answer, good or bad, or in one of
`batch.model.errors`.
"""

from __future__ import annotations

import os
import platform
import random
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from batch.model.clock import Clock, SystemClock
from batch.model.errors import DependencyForbidden, DependencyUnavailable, FanoutError, Unreached
from batch.services.calls import awaits_credentials, user_agent
from batch.services.json_api import Answer, Request, refusal_in
from batch.services.refusals import Refusal, Where, is_passing, translated

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 8.0
PASSING_TRIES = 3
"""How often a write is sent again that met a refusal which may be gone at the next try."""
SLOWEST_BYTES_S = 1 << 18
"""An answer that comes more slowly for longer than a call may take is given up: each wait for its next byte alone would never end."""
READ_BYTES = 1 << 20
UNIVERSE = "googleapis.com"
ENDPOINT, MTLS_ENDPOINT = "https://storage.googleapis.com", "https://storage.mtls.googleapis.com"
SCOPES = tuple(f"https://www.googleapis.com/auth/devstorage.{kind}" for kind in ("full_control", "read_only", "read_write"))
_RETRIED = frozenset({408, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def endpoint(environment: Mapping[str, str], *, is_mtls: bool) -> str:
    """Where Google's client would send requests. `is_mtls`: it has a certificate of its own to show."""
    own = environment.get("STORAGE_EMULATOR_HOST") or environment.get("API_ENDPOINT_OVERRIDE")
    mode = environment.get("GOOGLE_API_USE_MTLS_ENDPOINT", "auto")
    if own or mode == "never":
        return own or ENDPOINT
    return MTLS_ENDPOINT if mode == "always" or is_mtls else ENDPOINT


def failure_of(error: Exception, where: Where) -> FanoutError:
    """Our error for a request that got no answer, or was not sent: google-auth's, or one of the connection."""
    from google.auth import exceptions as errors

    if isinstance(error, errors.MutualTLSChannelError | errors.ClientCertError):
        return DependencyForbidden(
            f"{where}: the client certificate (mTLS) cannot be used: mend it, or do without by GOOGLE_API_USE_CLIENT_CERTIFICATE=false: "
            f"{error}"
        )
    unreached = _is_unreached(error) or (isinstance(error, errors.DefaultCredentialsError) and awaits_credentials())
    if isinstance(error, errors.DefaultCredentialsError | errors.RefreshError) and not error.retryable and not unreached:
        return DependencyForbidden(
            f"{where}: there are no usable Google credentials; on a laptop run `gcloud auth application-default login`: {error}"
        )
    found = translated(where, Refusal(0, f"{type(error).__name__}: {error}"))
    return Unreached(str(found)) if unreached and isinstance(found, DependencyUnavailable) else found


def _is_unreached(error: BaseException) -> bool:
    """Whether no connection came about, or it was cut before any answer; also that of a request for a token."""
    import requests
    import urllib3

    lost = urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError | urllib3.exceptions.ProtocolError
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    return any(isinstance(one, lost | ConnectionError | requests.exceptions.ConnectionError) for one in causes)


def _share_certificates(pool: Any) -> None:
    """Let all connections trust what is read now: each would read the authorities anew, 15 ms of processor time and 0.6 MB."""
    from urllib3.util.ssl_ import create_urllib3_context

    context = pool.conn_kw.get("ssl_context") or create_urllib3_context()
    context.load_verify_locations(pool.ca_certs, pool.ca_cert_dir)
    pool.conn_kw["ssl_context"] = context
    pool.ca_certs = pool.ca_cert_dir = None


class Transport:
    """Sends requests from any thread, but not from a copy of the process: two that write into one connection get each other's answers.

    `timeout_s` bounds one call with all its retries, `request_timeout_s` each wait on the socket, `reached_within_s` the retries of a call
    that finds no connection before any has been answered. `session` and `credentials` are for
    Google's own client beside it. Raises DependencyForbidden when there are no usable credentials, or its settings are wrong.
    """

    def __init__(
        self,
        where: Where,
        *,
        pool_size: int,
        timeout_s: float,
        request_timeout_s: float,
        reached_within_s: float | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        import urllib3
        from google.auth import exceptions as auth_errors

        self._where = where
        self._pool_size, self._timeout_s, self._request_timeout_s = pool_size, timeout_s, request_timeout_s
        self._unreached_s = timeout_s if reached_within_s is None else reached_within_s
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._closed = threading.Event()
        self._refreshing = threading.Lock()
        self._lost = (urllib3.exceptions.HTTPError, OSError, auth_errors.GoogleAuthError)
        self._timeout = urllib3.Timeout(connect=request_timeout_s, read=request_timeout_s)
        self._no_retry = urllib3.Retry(False, redirect=False)
        self._named = {"User-Agent": user_agent(), "x-goog-api-client": f"gl-python/{platform.python_version()} {user_agent()}"}
        self._is_emulator = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
        try:
            self.credentials: Any = self._found_credentials()
            self._token_request: Any = self._request_for_tokens()
            self._connect()
        except auth_errors.GoogleAuthError as error:
            raise failure_of(error, where) from error
        except (OSError, ValueError) as error:
            settings = "STORAGE_EMULATOR_HOST, HTTPS_PROXY, HTTP_PROXY, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE"
            told = f"{where}: the environment names no way there; look at {settings}"
            if any("@" in value for name, value in os.environ.items() if name.lower().endswith("_proxy")):  # a password would be shown
                raise DependencyForbidden(f"{told}; in a proxy's password write / as %2F, # as %23, ? as %3F, @ as %40") from None
            raise DependencyForbidden(f"{told}: {error}") from error

    def send(self, request: Request, where: Where) -> Answer:
        """The answer to a request, which is repeated while what it meets may pass. Raises DependencyUnavailable, DependencyForbidden."""
        begun_s = self._clock.monotonic()
        until_s = begun_s + self._timeout_s
        pause_s, lost, met = FIRST_PAUSE_S, 0, 0
        while True:
            answer: Answer | None = None
            try:
                answer = self._authorized(request)
                self._unreached_s = self._timeout_s
                if answer.status < 400:
                    return answer
            except self._lost as error:
                failure = failure_of(error, where)
                if isinstance(failure, DependencyForbidden):
                    raise failure from error
                failure.__cause__ = error
                if isinstance(failure, Unreached):
                    until_s = min(until_s, begun_s + self._unreached_s)
                lost += 1
                if lost == 1 and self._clock.monotonic() < until_s:
                    continue  # most likely an idle connection, closed as it was taken: that says nothing of the service
            if answer is not None and not (answer.status in _RETRIED or answer.status >= 500):
                met += 1
                is_write = request.body is not None
                if not is_write or met > PASSING_TRIES or not is_passing(where, refusal_in(answer), is_conditional=request.is_conditional):
                    return answer
            wait_s = self._rng.uniform(0.0, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if self._clock.monotonic() + wait_s >= until_s or self._clock.wait(self._closed, wait_s):
                if answer is None:
                    raise failure
                return answer

    def close(self) -> None:
        """Close the connections, and end the pauses of those who wait."""
        self._closed.set()
        self._pool.close()
        self.session.close()

    def _found_credentials(self) -> Any:
        import google.auth
        from google.auth import credentials

        if self._is_emulator:
            return credentials.AnonymousCredentials()
        found, _ = google.auth.default(scopes=SCOPES)
        found = credentials.with_scopes_if_required(found, scopes=SCOPES)
        if found.universe_domain != UNIVERSE:
            raise DependencyForbidden(
                f"{self._where}: the credentials are of the universe {found.universe_domain}, and Cloud Storage is reached in {UNIVERSE} "
                "only: use others"
            )
        return found

    def _request_for_tokens(self) -> Any:
        import requests
        from google.auth.transport.requests import Request as TokenRequest

        session = requests.Session()
        session.mount("https://", requests.adapters.HTTPAdapter(max_retries=3))
        return partial(TokenRequest(session), timeout=self._request_timeout_s)

    def _connect(self) -> None:
        """The pool that `requests` would take, with proxy and certificates, by the environment as it is now."""
        import requests
        from google.auth.transport.requests import AuthorizedSession

        session: Any = AuthorizedSession(self.credentials, auth_request=self._token_request)
        for scheme in ("https://", "http://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=self._pool_size))
        session.configure_mtls_channel()
        self._endpoint = endpoint(os.environ, is_mtls=session.is_mtls).rstrip("/")
        found = session.merge_environment_settings(self._endpoint, {}, True, None, None)
        to_endpoint = requests.Request("GET", self._endpoint).prepare()
        adapter = session.get_adapter(self._endpoint)
        pool = adapter.get_connection_with_tls_context(to_endpoint, found["verify"], found["proxies"], found["cert"])
        adapter.cert_verify(pool, self._endpoint, found["verify"], found["cert"])
        if self._endpoint.startswith("https:") and pool.proxy is None:
            _share_certificates(pool)
        self._prefix = adapter.request_url(to_endpoint, found["proxies"]).rstrip("/")  # all of it for a proxy that is no tunnel
        self._pool, self.session = pool, session

    def _authorized(self, request: Request) -> Answer:
        """With a token, and once more with a new one when it is refused."""
        headers = self._headers(request)
        answer = self._exchange(request, headers)
        if answer.status == 401 and not self._is_emulator:
            self._refresh(headers.get("authorization", ""))
            answer = self._exchange(request, self._headers(request))
        return answer

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {**self._named, **request.headers}
        url = self._endpoint + request.path
        if self.credentials.valid:
            self.credentials.before_request(self._token_request, request.method, url, headers)
        else:
            with self._one_at_a_time():  # one for all who wait, for it looks again whether there is one by now
                self.credentials.before_request(self._token_request, request.method, url, headers)
        return headers

    def _refresh(self, refused: str) -> None:
        with self._one_at_a_time():
            if refused.endswith(f" {self.credentials.token}"):  # or another thread has a new one already
                self.credentials.refresh(self._token_request)
                if self.session.is_mtls:
                    self._connect()  # a certificate that was replaced is refused so, too

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Raises TimeoutError: where no token comes, those who wait for each other would wait that long each."""
        if not self._refreshing.acquire(timeout=self._request_timeout_s):
            raise TimeoutError(f"another thread has got no token in {self._request_timeout_s:g} s; look at what gives the credentials")
        try:
            yield
        finally:
            self._refreshing.release()

    def _exchange(self, request: Request, headers: Mapping[str, str]) -> Answer:
        begun_s = self._clock.monotonic()
        response = self._pool.urlopen(
            request.method,
            self._prefix + request.path,
            request.body,
            headers,
            self._no_retry,
            redirect=False,
            assert_same_host=False,
            timeout=self._timeout,
            preload_content=False,
            decode_content=False,
        )
        if response.status < 200:
            response.close()  # or what follows it would be taken for the answer to the next request
            raise ConnectionError(f"{response.status} is no answer yet; find the proxy in between")
        body = self._body(response, begun_s, request.max_bytes)
        if body is None:
            return Answer(response.status, response.headers, b"", is_cut=True)
        if response.status in _REDIRECTS and "location" in response.headers:
            return self._redirected(request)
        return Answer(response.status, response.headers, body)

    def _body(self, response: Any, begun_s: float, max_bytes: int | None = None) -> bytes | None:
        """None where a content has more than `max_bytes`."""
        parts: list[bytes] = []
        count = 0
        most = max_bytes if max_bytes is not None and response.status == 200 else sys.maxsize
        while True:
            left = response.length_remaining
            if count + (left or 0) > most:
                response.close()
                return None
            part = response.read1(min(left or READ_BYTES, READ_BYTES))
            if not part or left == len(part):
                break
            parts.append(part)
            count += len(part)
            seconds = self._clock.monotonic() - begun_s
            if seconds > max(self._timeout_s, self._request_timeout_s) + count / SLOWEST_BYTES_S:
                response.close()
                raise TimeoutError(f"only {count} bytes of the answer came in {seconds:.0f} s")
        response.release_conn()
        return b"".join((*parts, part)) if parts else bytes(part)

    def _redirected(self, request: Request) -> Answer:
        """As Google's client follows it: without credentials to another host."""
        response = self.session.request(
            request.method,
            self._endpoint + request.path,
            data=request.body,
            headers={**self._named, **request.headers},
            timeout=self._request_timeout_s,
            stream=True,
        )
        return Answer(response.status_code, response.headers, response.raw.read(decode_content=False))
