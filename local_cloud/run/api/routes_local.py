"""What the real service does not have: the workers that run now, their logs, what they used, and moving one of them.

For tests and tools on this machine. Reading changes nothing, and times are Unix seconds of the service's clock.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.routing import Route

from local_cloud.run.api.endpoint import Call, locked_route, route
from local_cloud.run.model.cloud import Cloud
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.task import Event, Kind, Task, Try, can_move
from local_cloud.run.runner.runner import Runner
from local_cloud.run.spec.errors import ApiError, not_found
from local_cloud.run.spec.fields import Fields, Problems

DEFAULT_PAUSE_S = 5.0
MAX_DIGITS = 18
_EXECUTION = "/executions/{execution}"


def routes(cloud: Cloud, runner: Runner) -> list[Route]:
    handlers = _Handlers(cloud, runner)
    return [
        route("GET", "/workers", handlers.list_workers),
        locked_route(cloud.condition, "GET", f"{_EXECUTION}/usage", handlers.get_usage),
        locked_route(cloud.condition, "GET", f"{_EXECUTION}/logs", handlers.list_logs),
        route("GET", f"{_EXECUTION}/logs/{{index}}", handlers.get_log),
        locked_route(cloud.condition, "POST", f"{_EXECUTION}/migrate", handlers.migrate),
    ]


class _Handlers:
    def __init__(self, cloud: Cloud, runner: Runner) -> None:
        self._cloud = cloud
        self._runner = runner

    def list_workers(self, call: Call) -> dict[str, object]:
        del call
        return {"workers": [asdict(worker) for worker in self._runner.workers()]}

    def get_usage(self, call: Call) -> dict[str, object]:
        execution = self._execution(call)
        tries = [_show_try(task, one) for task in execution.tasks for one in task.tries]
        measured = [one.measured for task in execution.tasks for one in task.tries if one.measured is not None]
        peaks = [one.peak_memory_bytes for one in measured if one.peak_memory_bytes is not None]
        return {
            "execution": execution.name,
            "cpu_s": sum(one.cpu_s for one in measured),
            "peak_memory_bytes": max(peaks, default=None),
            "tries": tries,
        }

    def list_logs(self, call: Call) -> dict[str, object]:
        execution = self._execution(call)
        shown = []
        for task in execution.tasks:
            for retry in range(task.attempt + 1):
                path = self._log(execution, task, retry)
                if path.exists():
                    shown.append({"index": task.index, "retry": retry, "size_bytes": path.stat().st_size})
        return {"execution": execution.name, "logs": shown}

    def get_log(self, call: Call) -> PlainTextResponse:
        """`?retry=0` of an earlier try, by default of the last; `?offset=N` only what follows the first N bytes."""
        with self._cloud.condition:
            execution = self._execution(call)
            task = _task(execution, _number("index", call.path["index"]))
            path = self._log(execution, task, _number("retry", call.query.get("retry", str(task.attempt))))
        if not path.exists():
            raise not_found("LOG", f"executions/{execution.name}/logs/{path.name}")
        with path.open("rb") as file:
            file.seek(_number("offset", call.query.get("offset", "0")))
            return PlainTextResponse(file.read())

    def migrate(self, call: Call) -> dict[str, object]:
        """`{"index": 0, "pause_s": 5}`: SIGTSTP now, ten seconds later the worker stands still, `pause_s` later SIGCONT."""
        index, pause_s = _read_move(call)
        execution = self._execution(call)
        task = _task(execution, index)
        if not can_move(task):
            state = "is being moved or ended" if task.index in execution.active else f"is {task.phase.value}"
            raise ApiError("FAILED_PRECONDITION", f"worker {index} of {execution.name} {state}; only a running worker can be moved")
        self._cloud.record(execution, Event(Kind.MIGRATE, self._cloud.clock.now(), index, pause_s=pause_s))
        return {"execution": execution.name, "index": index, "retry": task.attempt, "pause_s": pause_s}

    def _execution(self, call: Call) -> Execution:
        return self._cloud.execution_named(call.path["execution"])

    def _log(self, execution: Execution, task: Task, retry: int) -> Path:
        return self._cloud.store.log_path(execution.name, task.index, retry)


def _show_try(task: Task, one: Try) -> dict[str, object]:
    return {
        "index": task.index,
        "retry": one.retry,
        "start_s": one.start_s,
        "end_s": one.end_s,
        "exit_code": one.exit_code,
        "term_signal": one.term_signal,
        "cpu_s": one.measured.cpu_s if one.measured else None,
        "peak_memory_bytes": one.measured.peak_memory_bytes if one.measured else None,
    }


def _task(execution: Execution, index: int) -> Task:
    if not 0 <= index < len(execution.tasks):
        raise not_found("TASK", f"executions/{execution.name}/{index}")
    return execution.tasks[index]


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise ApiError("INVALID_ARGUMENT", f"{name}: got {text[:40]!r}, must be a whole number, 0 or more")
    return int(text)


def _read_move(call: Call) -> tuple[int, float]:
    problems = Problems()
    body = Fields(call.json(), "", problems)
    body.only(frozenset({"index", "pause_s"}))
    index = body.count("index", 0)
    pause_s = body.raw.get("pause_s", DEFAULT_PAUSE_S)
    if isinstance(pause_s, bool) or not isinstance(pause_s, int | float) or not 0 <= pause_s < float("inf"):
        problems.add("pause_s", pause_s, "must be a number of seconds, 0 or more")
    problems.raise_if_any()
    return index, float(pause_s) if isinstance(pause_s, int | float) else DEFAULT_PAUSE_S
