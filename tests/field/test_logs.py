"""What a handler logs, prints or warns of appears as one JSON line that says whose it is; whatever a module does to `logging`, Fanout's own
lines keep their form."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from batch.events import log
from batch.logs import LEVELS, JsonLines, OwnLogger, own, severity, trace_field
from batch.logs import TRACE as TRACE_FIELD
from batch.model.exit import ExitReason
from batch.printed import Printed, end_printed_lines, take_what_is_printed
from batch.settings import worker_settings
from controller.config import controller_settings
from intake.config import intake_settings
from tests.batch.worker.plant import Plant
from tests.e2e.site import ROOT, Ended, Site
from tests.support import Service, slow_but

KINDS = ("plain", "async", "group", "isolated")
TRACE = "0af7651916cd43dd8448eb211c80319c"
SAYS = ("logger", "package", "print", "stderr", "warning", "ctx", "json", "aside")
SEVERITY = {"warning": "WARNING", "stderr": "WARNING", "json": "ERROR"}
MODULE = """
import asyncio
import contextvars
import json
import logging
import logging.config
import sys
import threading
import warnings

from batch import task

warnings.simplefilter("always")
logger = logging.getLogger(__name__)


def says(task, ctx):
    one = task.task_id
    logger.info("logger of %s", one)
    logging.getLogger("some.package").info("package of %s", one)
    print("print", "of", one)
    print("stderr of", one, file=sys.stderr)
    warnings.warn(f"warning of {one}")
    ctx.log.info("ctx of %s", one)
    print(json.dumps({"severity": "ERROR", "message": f"json of {one}", "colour": "red"}))
    thread = threading.Thread(target=contextvars.copy_context().run, args=(logger.info, "aside of %s", one))
    thread.start()
    thread.join()


@task("plain")
def plain(task, ctx):
    says(task, ctx)


@task("isolated", isolation="process")
def isolated(task, ctx):
    says(task, ctx)


@task("async")
async def awaited(task, ctx):
    await asyncio.sleep(0)
    await asyncio.create_task(aside(task, ctx))


async def aside(task, ctx):
    says(task, ctx)


@task("group", group=3)
def grouped(tasks, ctxs):
    for task, ctx in zip(tasks, ctxs):
        says(task, ctx)
    return [None] * len(tasks)


@task("fails", retries=1)
def fails(task, ctx):
    raise KeyError("half \\ud83d")
"""
AT_IMPORT = {
    "nothing": "",
    "dictConfig": """
logging.config.dictConfig({
    "version": 1,
    "formatters": {"short": {"format": "%(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "short"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
})
logger.disabled = False
""",
    "basicConfig": 'logging.basicConfig(force=True, format="%(message)s", level=logging.CRITICAL)',
    "root": "logging.getLogger().handlers.clear()",
    "disable fanout": 'logging.getLogger("fanout").disabled = logging.getLogger("fanout.handler").disabled = True',
}
IN_A_TASK = {
    "disable": "logging.disable(logging.CRITICAL)",
    "shutdown": "logging.shutdown()",
    "root": "logging.getLogger().handlers.clear()",
    "basicConfig": 'logging.basicConfig(force=True, format="%(message)s", level=logging.CRITICAL)',
    "closed": "sys.stdout.close(); sys.stderr.close()",
    "formatters": 'for one in logging.getLogger().handlers: one.setFormatter(logging.Formatter("%(message)s"))',
    "filters": "for one in logging.getLogger().handlers: one.addFilter(lambda record: 1 / 0)",
    "streams": "for one in logging.getLogger().handlers: setattr(one, 'stream', None)",
    "class": "logging.setLoggerClass(object) if False else logging.setLogRecordFactory(lambda *_, **__: None)",
}


@pytest.fixture
def site(project: str, local_storage: Service, local_pubsub: Service) -> Iterator[Site]:
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()


def run(site: Site, folder: Path, source: str = "", **more: object) -> Ended:
    (folder / "chatty.py").write_text(MODULE + source)
    own = {"HANDLERS": "chatty", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "FLUSH_INTERVAL_S": "0.1", "DRAIN_AFTER_S": "0.3"}
    return site.run(**{**own, "PROCESSES": 1, "MAX_MESSAGES": 100, "BILLING_FLOOR_S": 0, **more})


def publish(site: Site, *kinds: str) -> None:
    for kind in kinds:
        body = {"task_id": f"id-{kind}", "task_type": kind}
        site.publish_raw(json.dumps(body).encode(), traceparent=f"00-{TRACE}-b7ad6b7169203331-01", request_id="r-1")


def check_each_line_is_its_tasks(end: Ended, project: str) -> None:
    """Whatever was said, in one line each, of the right severity, with the facts of its task."""
    assert end.code == 0, end.text
    assert [line for line in end.text.splitlines() if not line.startswith("{")] == []
    for kind in KINDS:
        for said in SAYS:
            found = [line for line in end.lines if f"{said} of id-{kind}" in line["message"]]
            assert len(found) == 1, (kind, said, found, end.text)
            (line,) = found
            assert line["severity"] == SEVERITY.get(said, "INFO") or (kind, said) == ("isolated", "stderr"), line
            assert (line["task_id"], line["task_type"], line["attempt"]) == (f"id-{kind}", kind, 1)
            assert line["logging.googleapis.com/trace"] == f"projects/{project}/traces/{TRACE}"
            assert (line["lane"], line["request_id"]) == ("lane", "r-1")
            assert said != "json" or line["colour"] == "red"
    assert end.summary["exit_reason"] == "drained"
    assert end.events("worker_started")
    assert end.events("flushed")


@pytest.mark.parametrize("configured", slow_but(["nothing", "dictConfig"], AT_IMPORT))
def test_every_line_of_every_kind_of_handler_says_whose_it_is(site: Site, tmp_path: Path, configured: str) -> None:
    publish(site, *KINDS)
    end = run(site, tmp_path, AT_IMPORT[configured])
    check_each_line_is_its_tasks(end, site.project)


@pytest.mark.parametrize("does", slow_but(["disable", "closed"], IN_A_TASK))
def test_what_a_handler_does_to_logging_silences_neither_fanout_nor_its_context(site: Site, tmp_path: Path, does: str) -> None:
    source = f"""

def harms(task, ctx):
    {IN_A_TASK[does]}
    ctx.log.warning("still heard: %s", task.task_id)

task("harms", retries=0)(harms)
task("harms-alone", retries=0, isolation="process")(harms)
"""
    publish(site, "harms", "harms-alone")
    end = run(site, tmp_path, source)
    assert (end.code, end.summary["exit_reason"]) == (0, "drained"), end.text
    assert {line["message"]: line.get("task_id") for line in end.lines if "heard" in line["message"]} == {
        f"still heard: {task_id}": task_id for task_id in ("id-harms", "id-harms-alone")
    }
    assert site.final() == {"succeeded": 2}


@pytest.mark.slow
def test_the_level_is_a_setting(site: Site, tmp_path: Path) -> None:
    publish(site, "plain", "isolated")
    end = run(site, tmp_path, LOG_LEVEL="warning")
    assert end.code == 0
    assert {line["severity"] for line in end.lines} == {"WARNING", "ERROR"}
    assert {line["message"] for line in end.lines if line["severity"] == "ERROR"} == {"json of id-plain", "json of id-isolated"}


def test_a_level_that_is_none_is_refused(site: Site, tmp_path: Path) -> None:
    end = run(site, tmp_path, LOG_LEVEL="loud")
    assert end.code == 2
    assert [line["error"] for line in end.events("settings_wrong")] == [
        "LOG_LEVEL='loud': one of DEBUG, INFO, NOTICE, WARNING, ERROR, CRITICAL"
    ]


@pytest.mark.parametrize("read", [worker_settings, intake_settings, controller_settings])
def test_every_process_has_the_setting(read: Callable[[Mapping[str, str]], Any]) -> None:
    environment = {"GOOGLE_CLOUD_PROJECT": "p", "SUBSCRIPTION_NAME": "sub", "BUCKET_NAME": "bucket", "TOPIC_NAME": "topic"}
    assert read(environment).log_level == "INFO"
    assert read({**environment, "LOG_LEVEL": " debug "}).log_level == "DEBUG"


def test_libraries_that_log_each_request_stay_quiet_until_a_module_asks_them(site: Site, tmp_path: Path) -> None:
    source = """

@task("asks")
def asks(task, ctx):
    for name in ("urllib3.connectionpool", "google.auth.transport", "httpx"):
        logging.getLogger(name).info("request by %s", name)
        logging.getLogger(name).warning("trouble of %s", name)

logging.getLogger("httpx").setLevel(logging.INFO)
"""
    publish(site, "asks")
    said = [line["message"] for line in run(site, tmp_path, source).lines]
    assert [one for one in said if one.startswith("request")] == ["request by httpx"]
    assert len([one for one in said if one.startswith("trouble")]) == 3


@pytest.mark.slow
def test_a_failure_says_its_error_its_traceback_and_where_its_record_lies(site: Site, tmp_path: Path) -> None:
    publish(site, "fails")
    end = run(site, tmp_path, "\nfrom batch import Backoff\ntask('quick', retries=1, backoff=Backoff(first_s=0))(fails)\n")
    (failed,) = end.events("attempt_failed")
    assert failed["message"] == r"attempt failed: KeyError: 'half \ud83d'"
    assert failed["record"] == "attempts/id-fails.json"
    assert failed["stack_trace"].startswith("Traceback (most recent call last):\n")
    assert failed["stack_trace"].endswith("KeyError: 'half \\ud83d'\n")
    publish(site, "quick")
    end = run(site, tmp_path, "\nfrom batch import Backoff\ntask('quick', retries=1, backoff=Backoff(first_s=0))(fails)\n")
    (dead,) = end.events("dead_lettered")
    assert dead["lane"] == "lane"  # the metric of dead letters is by lane
    assert dead["message"] == r"dead lettered: KeyError: 'half \ud83d'"
    assert dead["record"] == "attempts/id-quick.json"
    assert dead["stack_trace"] == failed["stack_trace"]
    assert dead["@type"].endswith("ReportedErrorEvent")
    assert dead["serviceContext"] == {"service": "lane"}
    assert dead["logging.googleapis.com/trace"] == f"projects/{site.project}/traces/{TRACE}"


@pytest.mark.slow
def test_what_a_handler_leaves_behind_is_said_in_one_line_each(site: Site, tmp_path: Path) -> None:
    source = """

sys.stdout.reconfigure(line_buffering=True)


def breaks():
    raise ValueError("in a thread")


@task("leaves")
def leaves(task, ctx):
    thread = threading.Thread(target=breaks)
    thread.start()
    thread.join()
    print("without an end", end="")
    os.chdir("/")
"""
    publish(site, "leaves")
    end = run(site, tmp_path, f"import os\n{source}", DRAIN_AFTER_S=1.5)
    assert end.summary["exit_reason"] == "drained", end.text
    (thread,) = [line for line in end.lines if "in a thread" in line["message"]]
    assert (thread["severity"], thread["exception"].count("ValueError: in a thread")) == ("ERROR", 1)
    assert [line["task_id"] for line in end.lines if line["message"] == "without an end"] == ["id-leaves"]
    (changed,) = end.events("process_changed")
    assert (changed["changed"], "leaves" in changed["task_types"]) == ("working folder", True)


def test_the_attribute_of_googles_clients_names_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "project", "p")
    line = f"00-{TRACE}-b7ad6b7169203331-01"
    found = {TRACE_FIELD: f"projects/p/traces/{TRACE}"}
    assert [trace_field({name: line}) for name in ("traceparent", "googclient_traceparent")] == [found] * 2
    assert trace_field({"traceparent": line, "request_id": "r-1"}) == {**found, "request_id": "r-1"}
    for odd in ("", "x", f"00-{TRACE}", line.upper(), f"00-{TRACE[:-1]}-b7ad6b7169203331-01"):
        assert trace_field({"traceparent": odd}) == {}
    monkeypatch.setattr(own, "project", "")
    assert trace_field({"traceparent": line}) == {}


# --- in memory


@pytest.mark.parametrize("name", ["traceparent", "googclient_traceparent"])
def test_an_outcome_says_of_which_trace_its_task_is(name: str) -> None:
    plant = Plant()
    plant.registry.task("works")(lambda _task, _ctx: None)
    for kind in ("works", "unknown"):
        for traced in (True, False):
            attributes = {name: f"00-{TRACE}-b7ad6b7169203331-01"} if traced else {}
            plant.publish(json.dumps({"task_id": f"{kind}-{traced}", "task_type": kind}).encode(), **attributes)
    plant.worker(BACKLOG=4).run()
    found = {one.task_id: (one.outcome, one.trace_id) for one in plant.outcomes()}
    works = {"works-True": ("succeeded", TRACE), "works-False": ("succeeded", "")}
    assert found == {**works, "unknown-True": ("dead", TRACE), "unknown-False": ("dead", "")}


def test_a_line_of_one_task_of_a_group_and_one_of_the_whole_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plant = Plant()
    lines: list[dict[str, Any]] = []

    @plant.registry.task("group", group=30, group_wait_s=30)
    def grouped(tasks: list[Any], ctxs: list[Any]) -> list[None]:
        ctxs[1].log.info("of one")
        for message in ("of one", "of all"):
            record = caplog.records[-1] if message == "of one" else logging.makeLogRecord({"msg": message, "levelno": 20})
            lines.append(json.loads(JsonLines().format(record)))
        return [None] * len(tasks)

    plant.submit(30, "group")
    assert plant.worker(BACKLOG=30).run() is ExitReason.SHARE_DONE
    one, whole = lines
    assert (one["task_id"], one["task_type"], one["attempt"]) == ("task-1", "group", 1)
    assert (whole["task_type"], whole["task_count"], len(whole["task_ids"])) == ("group", 30, 20)
    assert "task_id" not in whole


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """For a test that takes standard output and error: the records of what is printed."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    caplog.set_level(logging.INFO)
    return caplog


def test_lines_are_printed_in_pieces(printed: pytest.LogCaptureFixture) -> None:
    take_what_is_printed()
    print("a", end="")
    print("b\n\nc", end="")
    print("\r 10 %", end="", flush=True)
    print("\r 20 %")
    print("30 %", end="\r")
    print("40 %", end="\r")
    print()
    print("\ud83d\0", "half")
    print("end", end="")
    end_printed_lines()
    assert [record.getMessage() for record in printed.records] == ["ab", " 20 %", "40 %", r"\ud83d\x00 half", "end"]
    assert {record.levelno for record in printed.records} == {logging.INFO}


def test_a_copy_says_what_it_has_printed_and_not_what_its_parent_had_begun(site: Site, tmp_path: Path) -> None:
    source = """

@task("copies", retries=0)
def copies(task, ctx):
    import multiprocessing

    print("begun by the parent", end=", ")
    copy = multiprocessing.get_context("fork").Process(target=print, args=("said by the copy",), kwargs={"end": ""})
    copy.start()
    copy.join()
    print("ended by the parent")
"""
    publish(site, "copies")
    end = run(site, tmp_path, source)
    said = [(line["message"], line["task_id"]) for line in end.events("handler_output")]
    assert said == [("said by the copy", "id-copies"), ("begun by the parent, ended by the parent", "id-copies")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"severity": "error", "message": "a"}, {"severity": "ERROR", "message": "a"}),
        ({"level": "warning", "event": "structlog's", "user": 1}, {"severity": "WARNING", "message": "structlog's", "user": 1}),
        ({"msg": "b", "event": "worker_broken", "name": "n"}, {"message": "b", "extra_event": "worker_broken", "extra_name": "n"}),
        ({"message": 5, "level": 20, "index": 9, "time": "t"}, {"extra_message": 5, "level": 20, "extra_index": 9, "extra_time": "t"}),
    ],
)
def test_a_printed_object_keeps_its_fields_and_is_never_taken_for_an_event(
    printed: pytest.LogCaptureFixture, line: dict[str, Any], expected: dict[str, Any]
) -> None:
    take_what_is_printed()
    print(json.dumps(line))
    (record,) = printed.records
    written = json.loads(JsonLines(index=3).format(record))
    assert {name: written.get(name) for name in expected} == expected
    assert (written["event"], written["index"]) == ("handler_output", 3)


def test_what_is_printed_without_end_is_cut(printed: pytest.LogCaptureFixture) -> None:
    take_what_is_printed()
    print("x" * 40_000, end="")
    end_printed_lines()
    assert [len(record.getMessage()) for record in printed.records] == [16_000, 16_000, 8_000]


def test_a_taken_stream_is_a_stream(printed: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as file:
        stream = Printed(file, "INFO")
        with pytest.raises(TypeError, match="must be str"):
            stream.write(b"bytes")  # type: ignore[arg-type]
        stream.buffer.write(b"past Python")
        stream.close()
        assert stream.name == file.name
        stream.reconfigure(line_buffering=True)
        stream.detach().write(b", twice")
        assert (stream.fileno(), stream.isatty(), stream.writable(), stream.encoding) == (file.fileno(), False, True, "utf-8")
        stream.write("after it was closed\n")
    assert [record.getMessage() for record in printed.records] == ["after it was closed"]


class Evil:
    def __str__(self) -> str:
        raise SystemExit(1)

    __repr__ = __str__


class EvilDict(dict[str, Any]):
    def items(self) -> Any:
        raise KeyboardInterrupt


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
CYCLE: list[Any] = []
CYCLE.append(CYCLE)
ODD = [Evil(), EvilDict(a=1), DEEP, CYCLE, float("nan"), 10**5000, "\ud83d", b"\xff", {(1, 2): 3}, {"\udc00": 1}, "x" * 300_000, None, {1}]


@pytest.mark.parametrize("number", range(len(ODD)))
def test_no_value_loses_a_line(number: int) -> None:
    odd = ODD[number]
    for record in (
        logging.makeLogRecord({"msg": "hello", "levelno": 20, "odd": odd, "fine": 1}),
        logging.makeLogRecord({"msg": "hello %s %s", "args": (odd,), "levelno": 20, "fine": 1}),
        logging.makeLogRecord({"msg": odd, "levelno": 20, "fine": 1}),
        OwnLogger("x").makeRecord("x", 20, "", 1, "hello", (), None, None, {"odd": odd, 1: odd, "fine": 1}),
        OwnLogger("x").makeRecord("x", 20, "", 1, "hello", (), None, None, odd),
    ):
        text = JsonLines(lane="l").format(record)
        line = json.loads(text)
        text.encode()
        assert (line["severity"], line["lane"], "\n" in text, len(text) < 250_000) == ("INFO", "l", False, True)
        assert "fine" not in vars(record) or line["fine"] == 1


def test_a_line_can_be_looked_at_in_a_terminal() -> None:
    """Whatever a handler logs: nothing in it steers the terminal or turns the direction of writing; a reader of JSON gets it as it was."""
    text = "\x1b[2J \x9b2J \x7f \u202e \u2028 \u2066 \ufeff \U000e0001 naïve 👩\u200d🚀"
    line = JsonLines().format(logging.makeLogRecord({"msg": text, "levelno": 20, "extra": {"\u202e": text}}))
    assert [one for one in line if not one.isprintable()] == ["\u200d"] * 2
    assert json.loads(line)["message"] == text
    assert json.loads(line)["extra"] == {"\u202e": text}


def test_an_error_that_cannot_be_shown_loses_no_line() -> None:
    for error in (ValueError(Evil()), KeyError(Evil()), ExceptionGroup("\ud83d", [ValueError("\0")])):
        line = json.loads(JsonLines().format(logging.makeLogRecord({"msg": "x", "levelno": 40, "exc_info": (type(error), error, None)})))
        assert line["exception"]


def test_a_field_does_not_take_the_place_of_the_workers_own() -> None:
    record = logging.makeLogRecord({"name": "theirs", "msg": "x", "levelno": 20, "severity": "y", "time": 1, "index": 7, "task_id": "mine"})
    record.event = "worker_broken"
    line = json.loads(JsonLines(index=3).format(record))
    assert (line.get("event"), line["extra_event"]) == (None, "worker_broken")
    assert (line["severity"], line["index"], line["extra_index"], line["extra_severity"], line["task_id"]) == ("INFO", 3, 7, "y", "mine")


@pytest.mark.parametrize(("level", "name"), [(0, "DEBUG"), (15, "DEBUG"), (20, "INFO"), (29, "NOTICE"), (35, "WARNING"), (99, "CRITICAL")])
def test_each_level_is_a_severity_that_cloud_logging_knows(level: int, name: str) -> None:
    assert severity(level) == name
    assert name in LEVELS


def test_without_a_log_of_its_own_a_process_logs_as_any_library(caplog: pytest.LogCaptureFixture) -> None:
    log("flush_failed", error="down")
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [("fanout", 30, "flush failed: down")]
    caplog.set_level(logging.ERROR, "fanout")
    log("flush_failed", error="down")
    assert len(caplog.records) == 1
