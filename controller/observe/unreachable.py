"""What a person is told when Cloud Run gave no answer at all: where, why, and what to do. One line, never a client's own dump."""

from __future__ import annotations


def no_answer(url: str, error: Exception, *, emulated: bool) -> str:
    """Cloud Run at `url` did not answer a request that failed with `error`, one of `requests`."""
    local, real = "is the local cloud up, and CLOUD_RUN_EMULATOR_HOST its address?", "look at the network and at REGION, try again"
    return f"Cloud Run at {url} does not answer ({_why(error)}): {local if emulated else real}"


def _why(error: Exception) -> str:
    """The system's own word, which the clients wrap several times, else the kind of the error."""
    found = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            found = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return found
