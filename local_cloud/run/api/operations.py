"""Long-running operations of the v2 API: a name, and functions that compute the operation's current state.

Each look at an operation computes its answer, so it can never lag behind the execution it is about.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from local_cloud.run.spec.errors import not_found

MAX_KEPT_COUNT = 1000
PREFIX = "type.googleapis.com/google.cloud.run.v2."


@dataclass(frozen=True)
class Operation:
    """`message` is the type of what `show` returns; `error` is called only once `is_done`."""

    name: str
    message: str
    show: Callable[[], dict[str, object]]
    is_done: Callable[[], bool]
    error: Callable[[], dict[str, object] | None]

    def to_json(self) -> dict[str, object]:
        subject = {"@type": PREFIX + self.message, **self.show()}
        state: dict[str, object] = {"name": self.name, "metadata": subject}
        if self.is_done():
            error = self.error()
            state["done"] = True
            state.update({"error": error} if error else {"response": subject})
        return state


class Operations:
    """The newest ones, in memory; an older one is lost unless its owner can make it again by its id. Callers hold the cloud's lock."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._kept: OrderedDict[str, Operation] = OrderedDict()

    def add(
        self,
        parent: str,
        message: str,
        show: Callable[[], dict[str, object]],
        is_done: Callable[[], bool] = lambda: True,
        error: Callable[[], dict[str, object] | None] = lambda: None,
        operation_id: str = "",
    ) -> Operation:
        """`parent`: projects/P/locations/R. `operation_id`: a new one by default."""
        operation = Operation(f"{parent}/operations/{operation_id or self._new_id()}", message, show, is_done, error)
        self._kept[operation.name] = operation
        while len(self._kept) > MAX_KEPT_COUNT:
            self._kept.popitem(last=False)
        return operation

    def has(self, name: str) -> bool:
        return name in self._kept

    def get(self, name: str) -> Operation:
        """The operation with this name. Raises ApiError NOT_FOUND."""
        if name not in self._kept:
            raise not_found("OPERATION", name)
        return self._kept[name]

    def below(self, parent: str) -> list[Operation]:
        """The operations of one location, oldest first."""
        return [operation for name, operation in self._kept.items() if name.startswith(f"{parent}/operations/")]
