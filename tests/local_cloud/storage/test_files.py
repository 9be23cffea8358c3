"""Where objects lie: as files a person can open, and never outside the state folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_cloud.storage.model.errors import Damaged, InvalidArgument, NotFound
from local_cloud.storage.model.files import escaped_location, plain_location
from local_cloud.storage.model.listing import ListQuery
from local_cloud.storage.model.records import check_object_name
from local_cloud.storage.model.storage import Ref, Storage
from tests.local_cloud.manual_clock import ManualClock

Put = Callable[..., Any]


def content_of(model: Storage, name: str) -> bytes:
    _, file = model.open(Ref("bucket", name))
    with file:
        return file.read()


def restarted(tmp_path: Path) -> Storage:
    """A model on a copy of the state folder, as after a kill."""
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    return Storage(tmp_path / "copy", ManualClock())


def test_an_object_is_a_plain_file_and_leaves_no_folder_behind(model: Storage, put: Put, tmp_path: Path) -> None:
    put("a/b/Größe 1.txt", b"hello")
    path = tmp_path / "state/buckets/bucket/a/b/Größe 1.txt"
    assert path.read_bytes() == b"hello"
    put("a/b/Größe 1.txt", b"again")
    assert path.read_bytes() == b"again"
    model.delete(Ref("bucket", "a/b/Größe 1.txt"))
    assert list((tmp_path / "state/buckets/bucket").iterdir()) == []


ODD_NAMES = [
    "a", "a/b", "a/b/c", "A", "A/b", "folder/", "/", "//", "/etc/passwd", "../up", "x/../../up", "x/./y", "x//y", "nul\0l",
    "tab\t", "s" * 300, "ü" * 200, "é", "e\u0301", "...", "a\\b", "~", "%2e%2e", "-", "d/" * 400 + "end",
]  # fmt: skip


@pytest.mark.parametrize("backwards", [False, True])
def test_names_that_cannot_be_paths_live_beside_the_others(model: Storage, put: Put, tmp_path: Path, backwards: bool) -> None:
    names = ODD_NAMES[::-1] if backwards else ODD_NAMES
    for name in names:
        put(name, name.encode())
    for name in names:
        assert content_of(model, name) == name.encode()
    assert {path.name for path in tmp_path.iterdir()} == {"state"}
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"buckets", "escaped", "meta", "staging"}
    for name in names:
        model.delete(Ref("bucket", name))
    model.delete_bucket("bucket")
    assert [path for kind in ("buckets", "escaped") for path in (tmp_path / "state" / kind).iterdir()] == []


@settings(derandomize=True, deadline=None, max_examples=300, database=None)
@given(st.text(alphabet=st.sampled_from("./\\~%aA\0\n é") | st.characters(codec="utf-8"), min_size=1, max_size=400))
def test_no_location_leads_out(name: str) -> None:
    root = Path("/state")
    locations = [escaped_location("bucket", name), plain_location("bucket", name)]
    for location, kind in zip(locations, ("escaped", "buckets"), strict=True):
        if location is not None:
            path = Path(f"{root}/{location}")
            assert path.is_relative_to(root / kind / "bucket")
            assert ".." not in path.parts
            assert all(0 < len(part.encode()) <= 255 for part in path.parts)


def test_names_that_only_some_file_systems_tell_apart_do_not_share_a_folder(put: Put) -> None:
    locations = [put(name).location for name in ("a/x", "A/X", "a/X/y", "A", "é", "e\u0301", "b")]
    assert [location.split("/")[0] for location in locations] == ["buckets"] + ["escaped"] * 3 + ["buckets", "escaped", "buckets"]


def test_files_that_a_person_put_there_are_left_alone(model: Storage, put: Put, tmp_path: Path) -> None:
    folder = tmp_path / "state/buckets/bucket"
    (folder / "mine").write_text("mine")
    put("mine", b"theirs")
    put("mine/too", b"theirs too")
    assert (content_of(model, "mine"), content_of(model, "mine/too")) == (b"theirs", b"theirs too")
    assert (folder / "mine").read_text() == "mine"
    (folder / "x").mkdir()
    put("x", b"a file")
    assert content_of(model, "x") == b"a file"


def test_what_a_person_removed_or_changed_is_named(model: Storage, put: Put, tmp_path: Path) -> None:
    put("removed")
    put("changed")
    (tmp_path / "state/buckets/bucket/removed").unlink()
    (tmp_path / "state/buckets/bucket/changed").write_text("longer than before")
    with pytest.raises(NotFound, match="removed by hand"):
        model.open(Ref("bucket", "removed"))
    with pytest.raises(Damaged, match="changed the file by hand"):
        model.open(Ref("bucket", "changed"))
    put("removed", b"back")
    assert content_of(model, "removed") == b"back"


def test_a_folder_in_the_place_of_an_object_s_file_is_named_and_left_alone(model: Storage, put: Put, tmp_path: Path) -> None:
    folder = tmp_path / "state/buckets/bucket"
    for name in ("written", "deleted", "below/it", "below/too"):
        put(name, b"before")
    for name in ("written", "deleted"):
        (folder / name).unlink()
        (folder / name).mkdir()
    shutil.rmtree(folder / "below")
    (folder / "below").write_text("a file of a person")
    for name in ("written", "below/it"):
        with pytest.raises(Damaged, match="is in the way of the file of the object"):
            put(name, b"after")
    with pytest.raises(Damaged, match="is a folder now"):
        model.open(Ref("bucket", "written"))
    put("below/new", b"new")
    for name in ("deleted", "below/too"):
        model.delete(Ref("bucket", name))
    assert (folder / "deleted").is_dir()
    assert model.files.staged_tokens() == set()
    again = restarted(tmp_path)
    assert [stored.name for stored in again.list_objects("bucket", ListQuery())[0]] == ["below/it", "below/new", "written"]
    assert content_of(again, "below/new") == b"new"
    again.close()


def test_a_restart_names_what_is_in_the_way_of_a_confirmed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Storage(tmp_path / "state", ManualClock())
    model.create_bucket("bucket", "project", {})
    staged = model.files.stage()
    staged.write(b"kept")

    def killed(*_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.files, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            model.put(Ref("bucket", "name"), staged, {})
    model.close()
    obstacle = tmp_path / "state/buckets/bucket/name"
    obstacle.mkdir()
    with pytest.raises(Damaged, match="move it away"):
        Storage(tmp_path / "state", ManualClock())
    obstacle.rmdir()
    again = Storage(tmp_path / "state", ManualClock())
    assert content_of(again, "name") == b"kept"
    again.close()


def test_nothing_is_written_or_removed_through_a_symbolic_link(model: Storage, put: Put, tmp_path: Path) -> None:
    folder, outside = tmp_path / "state/buckets/bucket", tmp_path / "outside"
    put("old/it", b"theirs")
    shutil.rmtree(folder / "old")
    outside.mkdir()
    (outside / "it").write_text("mine")
    for name in ("old", "new"):
        (folder / name).symlink_to(outside)
    put("new/it", b"theirs")
    model.delete(Ref("bucket", "old/it"))
    assert content_of(model, "new/it") == b"theirs"
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("it", "mine")]


def test_a_bucket_may_have_the_name_of_a_file_that_a_person_put_there(model: Storage, tmp_path: Path) -> None:
    (tmp_path / "state/buckets/mine").write_text("mine")
    model.create_bucket("mine", "project", {})
    staged = model.files.stage()
    staged.write(b"theirs")
    model.put(Ref("mine", "name"), staged, {})
    again = restarted(tmp_path)
    _, file = again.open(Ref("mine", "name"))
    with file:
        assert file.read() == b"theirs"
    again.close()
    assert (tmp_path / "state/buckets/mine").read_text() == "mine"


def test_a_reader_keeps_the_generation_that_it_opened(model: Storage, put: Put) -> None:
    put("it", b"old")
    stored, file = model.open(Ref("bucket", "it"))
    put("it", b"newer")
    model.delete(Ref("bucket", "it"))
    with file:
        assert file.read() == b"old"
    assert stored.size == 3


@pytest.mark.parametrize("name", ["", ".", "..", "a\rb", "a\nb", "x" * 1025, "ü" * 513, "\ud800"])
def test_names_that_the_service_refuses(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_object_name(name)
