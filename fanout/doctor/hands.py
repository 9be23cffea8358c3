"""What `fanout doctor --fix` may do. Nothing of it deletes, and nothing of it touches messages or objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Hands(Protocol):
    """Names are short ones. All raise DependencyError; doing what is done already is no error."""

    def create_topic(self, name: str) -> None: ...

    def create_subscription(self, name: str, topic: str, dead_letter_topic: str) -> None:
        """With the settings of a lane's subscription; without a dead-letter policy where `dead_letter_topic` is empty."""

    def set_subscription(self, name: str, settings: Mapping[str, Any]) -> None:
        """Fields of the API's Subscription; None clears one."""

    def set_job(
        self, name: str, *, parallelism: int | None = None, max_retries: int | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Only what is given; the rest of the job stays as it is."""
