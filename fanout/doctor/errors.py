"""What Google's clients raise, as one of our errors, for doctor's calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable
from fanout.doctor.facts import NotServed

_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
"""What a client, and our reading of its answer, raise on bodies that lack what the service always says."""


@contextmanager
def translated(what: str, *, may_lack: str = "") -> Iterator[None]:
    """`what` completes "cannot". `may_lack` names a service that may not have the call at all, the local cloud's: its answer that it does
    not know it is NotServed, in whatever words it says so."""
    from google.api_core.exceptions import (
        BadRequest,
        Forbidden,
        GoogleAPIError,
        MethodNotAllowed,
        MethodNotImplemented,
        NotFound,
        Unauthorized,
    )
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except MethodNotImplemented as error:
        raise NotServed(f"{may_lack or 'the service'} has no such call") from error
    except (BadRequest, MethodNotAllowed, NotFound) as error:
        if may_lack:
            raise NotServed(f"{may_lack} has no such call") from error
        kind = DependencyMissing if isinstance(error, NotFound) else DependencyUnavailable
        raise kind(f"cannot {what}: {_short(error)}") from error
    except (Forbidden, Unauthorized, GoogleAuthError) as error:
        raise DependencyForbidden(f"cannot {what}: {_short(error)}") from error
    except (GoogleAPIError, RequestException) as error:
        raise DependencyUnavailable(f"cannot {what}: {type(error).__name__}: {_short(error)}") from error
    except _UNREADABLE as error:
        raise DependencyUnavailable(f"cannot {what}: the answer is none of the service's; what stands between? {error!r:.300}") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
