"""Failed calls of Cloud Run in words: one line for a person, and whether a launch that failed certainly did nothing."""

from __future__ import annotations

from functools import cache

from controller.observe.jobs import LaunchRefused, LaunchThrottled, LaunchUnclear

_UNCLEAR_STATUS = frozenset({408, 499})
"""The 4xx that do not say whether the call took effect."""


@cache
def failures() -> tuple[type[Exception], ...]:
    """Everything that a call may raise, also if the answer is not Cloud Run's."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    return (GoogleAPIError, GoogleAuthError, RequestException, *unreadable())


@cache
def unreadable() -> tuple[type[Exception], ...]:
    """What the client and the code here raise on bodies that are not JSON, or lack what Cloud Run always sends."""
    from google.protobuf.json_format import Error

    return (Error, AttributeError, KeyError, TypeError, ValueError)


def launch_error(error: Exception, job: str, words: str) -> LaunchRefused | LaunchUnclear:
    """The error of a failed launch: `LaunchRefused` only if it certainly did nothing, which a lost answer, a timeout or a 5xx does not say.
    `words` is the error in one line."""
    from google.api_core.exceptions import ClientError, Forbidden, GoogleAPICallError, TooManyRequests
    from google.auth.exceptions import GoogleAuthError

    code = error.code if isinstance(error, GoogleAPICallError) else None
    text = f"Cloud Run refused to run {job}: {words}"
    if isinstance(error, Forbidden):
        return LaunchRefused(
            f"{text}; grant the controller's service account the custom role fanoutController on the project, or "
            "roles/run.jobsExecutorWithOverrides on the job; roles/run.invoker lacks run.jobs.runWithOverrides"
        )
    if isinstance(error, TooManyRequests):
        return LaunchThrottled(f"{text}; see the quota of job run requests per minute in this region, and RUN_CALLS_PER_MINUTE")
    if isinstance(error, GoogleAuthError) or (isinstance(error, ClientError) and code not in _UNCLEAR_STATUS):
        return LaunchRefused(text)
    return LaunchUnclear(f"no usable answer to the launch of {job}: {words}")


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def no_answer(url: str, error: Exception, *, emulated: bool) -> str:
    """One line for a person: Cloud Run at `url` did not answer a request that failed with `error` (of `requests`), and what to do."""
    local, real = "is the local cloud up, and CLOUD_RUN_EMULATOR_HOST its address?", "look at the network and at REGION, try again"
    return f"Cloud Run at {url} does not answer ({_why(error)}): {local if emulated else real}"


def _why(error: Exception) -> str:
    """The operating system's own text, which the clients wrap several times; else the kind of the error."""
    found = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            found = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return found
