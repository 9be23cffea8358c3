"""A handler that gives the bucket something that is no name and no content: it learns so in its own line, and nobody else pays for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from batch.child.store import RemoteStore, answered
from batch.child.wire import Frame
from batch.handling.registry import Registry
from batch.model.exit import ExitReason
from batch.model.outcomes import merged
from batch.services.objects import GoogleObjectStore
from batch.services.ports import ObjectStore
from batch.testing import MemoryObjectStore, run_group, run_handler
from batch.worker.life import Worker
from tests.batch.worker.isolated import submit
from tests.batch.worker.plant import Plant, write
from tests.field import services_handlers
from tests.field.services_handlers import CALLS, KINDS, known

WRONG = {
    "dict": (TypeError, r"bytes.*got a dict.*json\.dumps\(\.\.\.\)\.encode\(\)"),
    "list": (TypeError, r"bytes.*got a list.*json\.dumps\(\.\.\.\)\.encode\(\)"),
    "text": (TypeError, r"give bytes: text\.encode\(\)"),
    "none": (TypeError, "bytes.*got None"),
    "number": (TypeError, "bytes.*got an int"),
    "no name": (ValueError, "name.*empty"),
    "name of bytes": (TypeError, "name.*text.*got bytes"),
    "half a character": (ValueError, r"'out/half \\ud83d'.*half a character"),
    "two lines": (ValueError, r"'out/a\\nb'.*line"),
    "long": (ValueError, "1,025 bytes.*1,024"),
    "dots": (ValueError, r"'\.\.'"),
    "type": (TypeError, "content_type.*text.*got None"),
    "type of other letters": (ValueError, r"content_type must be a media type.*u65e5"),
    "type of two lines": (ValueError, "content_type"),
    "read nothing": (ValueError, "name.*empty"),
    "read none": (TypeError, "name.*text.*got None"),
    "read a number": (TypeError, "name.*text.*got an int"),
    "read half": (ValueError, "half a character"),
    "exists nothing": (ValueError, "name.*empty"),
    "exists none": (TypeError, "name.*text.*got None"),
    "download nothing": (ValueError, "name.*empty"),
    "download to bytes": (TypeError, "path.*text.*got bytes"),
    "download to a zero": (ValueError, r"path.*'a\\x00b'"),
    "at most a text": (TypeError, "max_bytes.*whole number.*got a str"),
    "at most less than nothing": (ValueError, "max_bytes.*negative.*-1"),
    "upload to none": (TypeError, "name.*text.*got None"),
    "upload nothing": (ValueError, "path.*''"),
    "upload none": (TypeError, "path.*text.*got None"),
    "upload what is missing": (FileNotFoundError, "No such file or directory: '/no/such/file'"),
    "upload a folder": (IsADirectoryError, "Is a directory: '/'"),
    "upload as none": (TypeError, "content_type.*text.*got None"),
}
RIGHT = ("bytes", "bytearray", "memoryview")


def test_every_call_is_right_or_wrong() -> None:
    assert set(CALLS) == {*WRONG, *RIGHT, "read in", "download", "upload", "fail"}


def plant_with(*task_types: str) -> Plant:
    registry = Registry()
    registry._handlers.update(known(*task_types))
    registry.task("write")(write)
    return Plant(registry=registry)


def worker(plant: Plant, **environment: object) -> Worker:
    return plant.worker(**{"HANDLERS": services_handlers.__name__, "PROCESSES": 1, "CONCURRENCY": 16, **environment})


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_failed_attempt_with_the_error_of_the_handlers_own_line(kind: str) -> None:
    plant = plant_with(kind)
    ids = {call: call.replace(" ", "-") for call in (*WRONG, *RIGHT)}
    for call, task_id in ids.items():
        submit(plant, task_id, kind, call=call)
    ran = worker(plant, BACKLOG=len(ids))
    assert ran.run() is ExitReason.SHARE_DONE
    outcomes = merged(plant.outcomes())
    for call, (error, said) in WRONG.items():
        outcome = outcomes[ids[call]]
        assert (outcome.outcome, outcome.error_type) == ("dead", error.__name__), (call, outcome)
        assert re.search(said, outcome.reason), (call, outcome.reason)
        (record,) = json.loads(plant.store.read(f"attempts/{ids[call]}.json"))["errors"]
        assert "services_handlers.py" in record["traceback"]
    for call in RIGHT:
        assert outcomes[ids[call]].outcome == "succeeded"
        assert plant.store.read(f"out/{call}") == b"same"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_handler_streams_to_a_file_and_from_one(kind: str, tmp_path: Path) -> None:
    plant = plant_with(kind)
    (tmp_path / "up").write_bytes(b"same")
    plant.store.write("in", b"1234")
    submit(plant, "down", kind, call="download", path=str(tmp_path / "down"))
    submit(plant, "up", kind, call="upload", path=str(tmp_path / "up"))
    assert worker(plant, BACKLOG=2).run() is ExitReason.SHARE_DONE
    outcomes = merged(plant.outcomes())
    assert [outcomes[one].result for one in ("down", "up")] == ["in", "out/upload"]
    assert (outcomes["up"].output, plant.store.read("out/upload")) == ("out/upload", b"same")
    assert (tmp_path / "down").read_bytes() == b"1234"
    plant.store.write("in", b"12345")
    submit(plant, "large", kind, call="download", path=str(tmp_path / "large"))
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    large = merged(plant.outcomes())["large"]
    assert (large.outcome, large.error_type) == ("dead", "ObjectTooLarge")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["down", "up"]


def test_it_spends_an_attempt_each_time() -> None:
    plant = plant_with("bucket-patient")
    submit(plant, "wrong", "bucket-patient", call="dict")
    worker(plant, BACKLOG=4).run()
    assert plant.final() == {"wrong": "dead"}
    assert len(json.loads(plant.store.read("attempts/wrong.json"))["errors"]) == 4


@pytest.mark.parametrize("kind", ["bucket-thread", "bucket-isolated"])
def test_many_of_them_hold_up_nobody_else(kind: str) -> None:
    plant = plant_with(kind)
    for number in range(25):
        submit(plant, f"wrong-{number}", kind, call="dict")
    for number in range(5):
        submit(plant, f"good-{number}", "write", name=f"out/{number}")
    assert worker(plant, BACKLOG=30).run() is ExitReason.SHARE_DONE
    final = plant.final()
    assert {final[f"wrong-{number}"] for number in range(25)} == {"dead"}
    assert {final[f"good-{number}"] for number in range(5)} == {"succeeded"}


@pytest.mark.parametrize("call", WRONG)
@pytest.mark.parametrize("kind", ["bucket-thread", "bucket-async"])
def test_run_handler_says_the_same(kind: str, call: str) -> None:
    error, said = WRONG[call]
    with pytest.raises(error, match=said):
        run_handler(kind, {"call": call})
    grouped = kind.replace("-thread", "") + "-group"
    (answer,) = run_group(grouped, [{"call": call}])
    assert type(answer) is error
    assert re.search(said, str(answer))


def stores() -> dict[str, Any]:
    memory = MemoryObjectStore()
    return {"memory": memory, "remote": RemoteStore("memory", lambda header, body: answered(memory, Frame(header, body)))}


NAMED = {
    "write": lambda store, name: store.write(name, b"x"),
    "read": lambda store, name: store.read(name),
    "read_with_info": lambda store, name: store.read_with_info(name),
    "info": lambda store, name: store.info(name),
    "download": lambda store, name: store.download(name, "file"),
    "upload": lambda store, name: store.upload(name, "file"),
    "patch_metadata": lambda store, name: store.patch_metadata(name, {}),
    "delete": lambda store, name: store.delete(name),
}


@pytest.mark.parametrize("call", NAMED)
@pytest.mark.parametrize("which", ["memory", "remote", "google"])
def test_every_store_checks_before_it_asks(which: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")  # nobody answers there: it must not be asked
    google = GoogleObjectStore("b", project="p", timeout_s=0.1)
    store: ObjectStore = {**stores(), "google": google}[which]
    for name, error in (
        ("", ValueError),
        (None, TypeError),
        (5, TypeError),
        (b"x", TypeError),
        ("\ud83d", ValueError),
        ("a\rb", ValueError),
    ):
        with pytest.raises(error, match="name"):
            NAMED[call](store, name)
    contents: list[Any] = [{}, "text", None, 5, ["x"]]
    for data in contents:
        with pytest.raises(TypeError, match="bytes"):
            store.write("one", data)
    with pytest.raises(TypeError, match="content_type"):
        store.write("one", b"x", content_type=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prefix"):
        list(store.list(None))  # type: ignore[arg-type]
    google.close()
