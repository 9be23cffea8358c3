"""Files of isolated handlers: objects that are streamed, and the temporary folder that goes with its child."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.child.folder import TemporaryFolder, remove_all
from batch.model.clock import iso
from batch.model.exit import ExitReason
from batch.model.outcomes import Outcome, merged
from batch.services.ports import ObjectInfo
from batch.worker.executors.environment import environment_of_child
from tests.batch.child import file_handlers
from tests.batch.worker.isolated import plant_with, submit, worker
from tests.batch.worker.plant import Plant
from tests.support import wait_until

MODULE = file_handlers.__name__


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The worker's own temporary folder. Nothing is left there, however a child ended."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    wait_until(lambda: not os.listdir(folder), 60, "the removal of all folders of children")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder to which links lead."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("not a task's")
    return folder


def run(plant: Plant, count: int, **environment: object) -> dict[str, Outcome]:
    assert worker(plant, BACKLOG=count, PROCESSES=1, HANDLERS=MODULE, **environment).run() is ExitReason.SHARE_DONE
    return merged(plant.outcomes())


def test_an_isolated_handler_streams_an_object_into_a_file_and_out_again() -> None:
    plant = plant_with("child-stream")
    data = bytes(range(256)) * 12_000
    plant.store.write("in", data)
    submit(plant, "one", "child-stream", **{"from": "in", "to": "out"})
    outcome = run(plant, 1)["one"]
    assert outcome.result == {"size": [len(data), len(data)], "created": True, "name": "out"}
    assert outcome.output == "out"
    content, info = plant.store.read_with_info("out")
    assert (content, info.content_type, info.metadata["task_id"]) == (data, "text/csv", "one")


def test_an_upload_is_an_output_once_per_task_and_a_newer_ones_stays() -> None:
    plant = plant_with("child-stream")
    plant.store.write("in", b"mine")
    plant.store.write("newer", b"newer", metadata={"task_id": "z", "submitted_at": iso(plant.clock.now() + 60)})
    plant.store.write("older", b"older")
    plant.store.write("own", b"mine already", metadata={"task_id": "own", "submitted_at": iso(plant.clock.now())})
    for name in ("newer", "older", "own"):
        submit(plant, name, "child-stream", **{"from": "in", "to": name})
    outcomes = run(plant, 3)
    assert {name: outcomes[name].outcome for name in outcomes} == {"newer": "superseded", "older": "succeeded", "own": "succeeded"}
    assert [plant.store.read(name) for name in ("newer", "older", "own")] == [b"newer", b"mine", b"mine already"]
    assert outcomes["own"].result["created"] is False


def test_what_goes_wrong_with_a_file_is_raised_in_the_child() -> None:
    plant = plant_with("child-file-errors")
    plant.store.write("in", b"12")
    submit(plant, "one", "child-file-errors")
    missing, large, no_folder, no_file, no_path = run(plant, 1)["one"].result
    assert missing == "ObjectMissing: object no/such does not exist"
    assert large.startswith("ObjectTooLarge: object in is larger than the 1 bytes")
    assert no_folder.startswith("FileNotFoundError: [Errno 2] No such file or directory: '/")
    assert no_file.endswith("/no-such-file'")
    assert no_path == "TypeError: a file's path must be a text or a pathlib.Path, got an int"


@pytest.mark.parametrize(
    ("task_type", "end", "error_type"),
    [
        ("child-litter", "", ""),
        ("child-litter", "exit", "ProcessDied"),
        ("child-litter", "kill", "ProcessDied"),
        ("child-litter", "close", ""),
        ("child-litter-late", "hang", "TimeoutError"),
    ],
)
def test_the_folder_goes_with_its_child_however_that_ends(outside: Path, temp: Path, task_type: str, end: str, error_type: str) -> None:
    plant = plant_with(task_type)
    submit(plant, "one", task_type, end=end, outside=str(outside))
    outcome = run(plant, 1)["one"]
    assert outcome.error_type == error_type
    if not end:
        folder = Path(outcome.result["folder"])
        assert (folder.parent, outcome.result["found"]) == (temp, [])
    wait_until(lambda: not os.listdir(temp), 60, "the removal of the child's folder")
    assert (outside / "file").read_text() == "not a task's"


@pytest.mark.parametrize("end", ["", "raise", "elsewhere", "close"])
def test_what_a_task_leaves_is_gone_before_the_next_begins(outside: Path, end: str) -> None:
    plant = plant_with("child-litter")
    submit(plant, "one", "child-litter", end=end, outside=str(outside))
    submit(plant, "two", "child-litter", outside=str(outside))
    outcomes = run(plant, 2)
    second = outcomes["two"].result
    assert [one for one in second["found"] if not one.startswith("pymp-")] == []
    assert os.path.dirname(second["of_python"]) == second["folder"]
    if end != "raise":
        first = outcomes["one"].result
        assert (first["pid"], first["folder"]) == (second["pid"], second["folder"])
        assert (first["of_python"], second["is_there"]) == (second["of_python"], True), "multiprocessing counts on its folder"
    assert os.listdir(outside) == ["file"]


def test_a_folder_that_was_replaced_by_a_link_is_made_again(outside: Path, temp: Path) -> None:
    plant = plant_with("child-litter")
    submit(plant, "one", "child-litter", end="swap", outside=str(outside))
    submit(plant, "two", "child-litter", outside=str(outside))
    outcomes = run(plant, 2)
    first, second = outcomes["one"].result, outcomes["two"].result
    assert (first["pid"], first["folder"], second["found"]) == (second["pid"], second["folder"], [])
    assert os.listdir(outside) == ["file"]
    (moved,) = temp.glob("*-moved")  # outside of the folder: the handler's own affair
    os.chmod(moved / "deep" / "er", 0o700)
    shutil.rmtree(moved)


def test_a_child_is_watched_while_the_worker_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = plant_with("child-slow-transfer")
    plant.store.write("in", b"12")
    go_on, ended = threading.Event(), threading.Event()
    download = plant.store.download
    errors: list[BaseException] = []

    def slow(name: str, path: Any, **options: Any) -> ObjectInfo:
        assert go_on.wait(60)
        try:
            return download(name, path, **options)
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            ended.set()

    monkeypatch.setattr(plant.store, "download", slow)
    submit(plant, "one", "child-slow-transfer")
    outcome = run(plant, 1)["one"]
    assert (outcome.outcome, outcome.error_type) == ("dead", "TimeoutError")
    go_on.set()
    assert ended.wait(60)
    assert [type(one) for one in errors] == [FileNotFoundError], "the folder is gone, and the transfer with it"


# --- the folder itself


def filled() -> tuple[TemporaryFolder, Path]:
    folder = TemporaryFolder()
    folder.make()
    return folder, Path(folder.path)


def test_what_modules_have_made_when_they_were_imported_stays() -> None:
    folder, path = filled()
    (path / "of a module").mkdir()
    folder.keep()
    (path / "of a module" / "file").write_text("x")
    (path / "of a task").mkdir()
    folder.clear()
    assert os.listdir(path) == ["of a module"]
    folder.remove()
    folder.remove()


def test_what_cannot_be_removed_is_told_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, path = filled()
    for name in ("a", "stuck", "z"):
        (path / name).write_text("x")
    unlink = os.unlink

    def refuse(name: Any, **options: Any) -> None:
        if name == "stuck":
            raise OSError(16, "busy")
        unlink(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        folder.clear()
        folder.clear()
        folder.remove()
    assert os.listdir(path) == ["stuck"]
    (line,) = [one for one in caplog.records if vars(one).get("event") == "temporary_files_left"]
    assert (vars(line)["path"], vars(line)["error"]) == (str(path), "OSError: [Errno 16] busy")
    folder.remove()


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not root, to whom every folder is open; in the system's folder, for pytest's own is root's."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


@pytest.mark.usefixtures("somebody")
def test_folders_that_are_closed_are_opened_and_removed() -> None:
    """As archives bring them: to be read only, or not even that."""
    folder, path = filled()
    for name, mode in (("a", 0o500), ("b", 0)):
        (path / name / "in" / "deep").mkdir(parents=True)
        (path / name / "in" / "file").write_text("x")
        for one in (path / name / "in" / "deep", path / name / "in", path / name):
            os.chmod(one, mode)
    folder.clear()
    assert os.listdir(path) == []
    os.chmod(path, 0)
    folder.clear()
    folder.remove()
    assert not path.exists()


def test_folders_of_any_depth_are_removed_with_few_files_open() -> None:
    """Beyond what Python calls deep, and beyond what a process may open."""
    folder, path = filled()
    above = os.open(path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("in", dir_fd=above)
        inner = os.open("in", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = inner
    os.close(above)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 10, hard))
    try:
        folder.clear()
        assert os.listdir(path) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        folder.remove()
    folder.clear()
    assert not path.exists(), "a worker that ends removes what its threads still use"


def test_what_comes_while_it_is_removed_is_removed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, path = filled()
    rmdir = os.rmdir
    came = [path / "late"]

    def late(name: Any, **options: Any) -> None:
        while came:
            came.pop().write_text("x")
        rmdir(name, **options)

    monkeypatch.setattr(os, "rmdir", late)
    folder.remove()
    assert not path.exists()


def test_a_worker_that_ends_removes_the_folders_of_all_its_children(temp: Path) -> None:
    for _ in range(2):
        filled()
    remove_all()
    assert os.listdir(temp) == []


def test_the_limit_of_data_transformation_reaches_a_child() -> None:
    assert environment_of_child({"DATA_MAX_BYTES": "1", "SECRET": "x"}, ()) == {"DATA_MAX_BYTES": "1"}
