"""What an author tests: the function, its refusals, everything that may happen to a task, and the lane as a whole. No cloud is needed."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("PIL", reason="Pillow is not installed: pip install -r requirements.txt")

from PIL import Image

from batch import Permanent, Retry
from batch.model.errors import MessageRefused
from batch.testing import ManualClock, MemoryObjectStore, Rehearsal, drain, run_handler
from thumbnails.handlers import thumbnail


def picture(width: int = 400, height: int = 300, kind: str = "PNG") -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(body, kind)
    return body.getvalue()


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/png")]
)
def test_a_picture_fits_into_the_square(kind: str, media_type: str) -> None:
    store = MemoryObjectStore()
    run = run_handler(thumbnail, {"name": "a/red", "size": 100}, store=store, objects={"input/a/red": picture(kind=kind)})
    with Image.open(io.BytesIO(run.data("thumbnails/a/red"))) as small:
        assert small.size == (100, 75)
    info = store.info("thumbnails/a/red")
    assert info is not None
    assert info.content_type == media_type
    assert (run.result["width"], run.result["height"]) == (100, 75)


def test_a_small_picture_is_not_made_larger() -> None:
    run = run_handler(thumbnail, {"name": "dot"}, objects={"input/dot": picture(20, 10)})
    assert (run.result["width"], run.result["height"]) == (20, 10)


@pytest.mark.parametrize("fields", [{}, {"name": "../secret"}, {"name": "a", "size": 5}])
def test_wrong_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(MessageRefused):
        run_handler(thumbnail, fields)


def test_what_is_no_picture_is_permanent_and_what_is_not_there_is_asked_for_again() -> None:
    with pytest.raises(Permanent, match="not an image"):
        run_handler(thumbnail, {"name": "a"}, objects={"input/a": b"hello"})
    with pytest.raises(Retry, match="upload it"):
        run_handler(thumbnail, {"name": "a"})


def test_whatever_happens_there_is_one_thumbnail() -> None:
    Rehearsal(thumbnail, {"name": "a"}, objects={"input/a": picture()}).check()


def test_the_lane_as_a_whole() -> None:
    tasks = [{"task_type": "thumbnail", "name": name} for name in ("good", "bad", "missing")]
    drained = drain(tasks, objects={"input/good": picture(), "input/bad": b"hello"}, clock=ManualClock())
    assert [drained.outcome(f"task-{number}") for number in (1, 2, 3)] == ["succeeded", "dead", "dead"]
    assert list(drained.outputs) == ["thumbnails/good"]
    assert drained.began_s("task-3") == [0, 30, 90, 210]  # it was asked for three times more, 30, 60 and 120 s later
