"""What others call when telemetry is on; where it is off they hold None. No library is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from batch.model.delivery import Delivery


class AttemptSpan(Protocol):
    """The span of one attempt whose message is sampled."""

    traceparent: str
    """The attempt's own context, in the W3C's form."""

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The handler, which finds this span as the current one when it is called: in a context of its own, which is thrown away."""


class AttemptWatch(Protocol):
    """Of a worker; called for each attempt, from any thread. `answer` is how it ended: a value of `batch.handling.answer.Said`."""

    def begin(self, delivery: Delivery, task_id: str, task_type: str, number: int) -> AttemptSpan | None:
        """None when no span is made, which is known without reading the message's context. `number` counts attempts from 1."""

    def link(self, spans: Sequence[AttemptSpan]) -> None:
        """One call runs several attempts: the first one's span, which its handler finds, links the others' messages."""

    def ended(
        self, task_type: str, answer: str, seconds: float, span: AttemptSpan | None, error_type: str = "", reason: str = "", stack: str = ""
    ) -> None:
        """It took that long."""

    def ended_together(self, task_type: str, answer: str, seconds: float, count: int, spans: Sequence[AttemptSpan]) -> None:
        """As `ended`, for `count` attempts of one call."""


class SendSpan(Protocol):
    """The span of a publish. An exception that leaves its `with` block is recorded."""

    attributes: Mapping[str, str]
    """For the messages: the context of this span, under the names that the W3C and Google's clients use."""

    def sent(self, message_id: str) -> None:
        """The broker has confirmed it."""


class RequestSpan(Protocol):
    """The span of an HTTP request."""

    traceparent: str

    def end(self, status: int, route: str, error: BaseException | None = None) -> None:
        """`status` 0: nothing was answered; `route` is the pattern of the path, empty when none fits."""


class ServiceWatch(Protocol):
    """Of a service: its requests and what it publishes for them."""

    def request(self, method: str, path: str, scheme: str, traceparent: str) -> RequestSpan:
        """`traceparent`: what came with the request, empty for none. Whether it is sampled is followed."""

    def sending(self, topic: str, attributes: Mapping[str, str], count: int = 1) -> AbstractContextManager[SendSpan]:
        """Around a publish of `count` messages with these attributes, under the context that they name."""
