"""The kinds of faults: one table with what each of them means, what it takes and which calls can meet it.

The documentation quotes this table, so each meaning is a sentence for a reader who knows none of the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PUBSUB = "Pub/Sub"
MONITORING = "Monitoring"
STORAGE = "Storage"
RUN = "Cloud Run"

_ALL = (PUBSUB, MONITORING, STORAGE, RUN)
_HTTP = (STORAGE, RUN)


class CannotStart(StrEnum):
    """Why an execution never starts."""

    IMAGE = "image"
    QUOTA = "quota"
    ADDRESSES = "addresses"


@dataclass(frozen=True, slots=True)
class Kind:
    """`takes`: the names of its parameters; `needs`: those that must be given. `methods`: the only ones that can meet it; empty: all."""

    name: str
    meaning: str
    services: tuple[str, ...]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def fits(self, service: str, method: str) -> bool:
        if method == "StreamingPull":
            return self.name in ("ok", "unavailable", "permission_denied")
        return service in self.services and (not self.methods or method in self.methods)


_TABLE = (
    Kind("ok", "The call goes well. Stands in a list for calls that come before or between the faults.", _ALL),
    Kind("unavailable", "Nothing happens, and the answer is UNAVAILABLE, over HTTP 503.", _ALL),
    Kind("deadline_exceeded", "Nothing happens, and the answer is DEADLINE_EXCEEDED, over HTTP 504, at once.", _ALL),
    Kind("too_many_requests", "Nothing happens, and the answer is RESOURCE_EXHAUSTED, over HTTP 429.", _ALL),
    Kind("permission_denied", "Nothing happens, and the answer is PERMISSION_DENIED, over HTTP 403.", _ALL),
    Kind("slow", "The call is carried out `seconds` later, by the service's clock, and answered then.", _ALL, ("seconds",), ("seconds",)),
    Kind("lost_response", "The call is carried out, but the caller sees UNAVAILABLE, over HTTP a connection reset.", _ALL),
    Kind(
        "effect_after",
        "The answer is an error (UNAVAILABLE, over HTTP 503), and `seconds` later, by the service's clock, the call is carried out.",
        (PUBSUB, STORAGE, RUN),
        ("seconds",),
        ("seconds",),
    ),
    Kind("empty_pull", "The pull is answered at once without a message, whatever waits.", (PUBSUB,), methods=("Pull",)),
    Kind("few_messages", "The pull gets at most `count` messages.", (PUBSUB,), ("count",), ("count",), ("Pull",)),
    Kind(
        "duplicate_delivery",
        "What this pull gets is delivered once more to the next pull of the subscription, with other ack ids, though it is leased.",
        (PUBSUB,),
        methods=("Pull",),
    ),
    Kind(
        "deadline_with_lease",
        "The pull is answered with DEADLINE_EXCEEDED, but its messages are leased and come again only after the ack deadline.",
        (PUBSUB,),
        methods=("Pull",),
    ),
    Kind(
        "late_ack",
        "The acknowledgement is answered at once and takes effect `seconds` later, by the service's clock, if the lease still holds then.",
        (PUBSUB,),
        ("seconds",),
        ("seconds",),
        ("Acknowledge",),
    ),
    Kind("precondition_failed", "Nothing happens, and the answer is 412, as if another writer had been faster.", (STORAGE,)),
    Kind("http_503", "Nothing happens, and the answer is 503 with a page of HTML, as a load balancer gives it.", _HTTP),
    Kind(
        "reset_connection",
        "The connection is reset in the middle: of an upload's content after `after_bytes` of it have come, otherwise of the answer "
        "after `after_bytes` of it are sent. Without `after_bytes`: after half.",
        (STORAGE,),
        ("after_bytes",),
        methods=("objects.get", "objects.insert"),
    ),
    Kind(
        "partial_body",
        "The connection is closed after `after_bytes` of the answer (without: after half of it), though more was announced.",
        (STORAGE,),
        ("after_bytes",),
        methods=("objects.get",),
    ),
    Kind(
        "cannot_start",
        "The execution is made and never starts; its conditions say why until it is cancelled. `reason`: "
        f"{', '.join(f'`{reason}`' for reason in CannotStart)}.",
        (RUN,),
        ("reason",),
        ("reason",),
        ("jobs.run",),
    ),
)
KINDS = {kind.name: kind for kind in _TABLE}


def kinds_for(service: str, method: str) -> list[Kind]:
    """The kinds that a call of this method can meet."""
    return [kind for kind in _TABLE if kind.fits(service, method)]


def markdown() -> str:
    """The table as the documentation shows it."""
    rows = [(f"`{kind.name}`", _names(kind.takes), kind.meaning, _where(kind)) for kind in _TABLE]
    return "\n".join(
        ["| fault | takes | what happens | met by |", "| --- | --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    )


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _where(kind: Kind) -> str:
    return _names(kind.methods) or ("all" if kind.services == _ALL else ", ".join(kind.services))
