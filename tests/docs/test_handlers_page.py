"""The page for authors of handlers: its programs run, and the worked example is what it says."""

from __future__ import annotations

import gzip
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.handling.registry import default_registry
from batch.model.errors import Permanent
from batch.settings import worker_settings
from batch.testing import MemoryObjectStore, run_handler

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "handlers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PROGRAM = next(block for block in BLOCKS if block.startswith("# my_team/handlers.py"))
TESTS = [block for block in BLOCKS if "def test_" in block]
EXAMPLE = ROOT / "docs" / "examples" / "thumbnails"


@pytest.fixture
def _my_team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's first program, where the page says it is."""
    folder = tmp_path / "my_team"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "handlers.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my_team"]:
        del sys.modules[name]
    default_registry._handlers.pop("greet", None)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:40])
def test_every_program_is_python(block: str) -> None:
    compile(block, "docs/handlers.md", "exec")


@pytest.mark.usefixtures("_my_team")
@pytest.mark.parametrize("block", TESTS, ids=lambda block: re.findall(r"def (test_\w+)", block)[-1])
def test_the_tests_on_the_page_pass(block: str) -> None:
    importlib.import_module("my_team.handlers")
    names: dict[str, object] = {}
    known = set(default_registry)
    try:
        exec(compile(block, "docs/handlers.md", "exec"), names)
        tests = [one for name, one in names.items() if name.startswith("test_") and callable(one)]
        assert tests
        for one in tests:
            one()
    finally:
        for task_type in set(default_registry) - known:
            del default_registry._handlers[task_type]


def test_the_handler_that_streams_does_what_it_says() -> None:
    (block,) = [block for block in BLOCKS if "def compress(" in block]
    names: dict[str, Any] = {}
    try:
        exec(compile(block, "docs/handlers.md", "exec"), names)
        run = run_handler(names["compress"], {"object": "a.csv"}, objects={"a.csv": b"a,b\n" * 1000})
    finally:
        default_registry._handlers.pop("compress", None)
    assert run.result == {"object": "zipped/a.csv.gz", "read_bytes": 4000}
    assert gzip.decompress(run.data("zipped/a.csv.gz")) == b"a,b\n" * 1000


def test_the_handler_with_sql_computes_and_refuses() -> None:
    (block,) = [one for one in BLOCKS if one.startswith("# my_team/sales.py")]
    try:
        exec(compile(block, "docs/handlers.md", "exec"), {})
        objects = {"s.csv": b"day,amount\n2026-01-02,1.5\n2026-01-01,2\n2026-01-02,1\n", "other.csv": b"a,b\n1,2\n"}
        store = MemoryObjectStore()
        run = run_handler("sales-by-day", {"source": "s.csv"}, objects=objects, store=store)
        assert isinstance(run.result, dict)
        table = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(store.read(run.result["result"])))
        assert [str(one) for one in table["day"].to_pylist()] == ["2026-01-01", "2026-01-02"]
        assert table["amount"].to_pylist() == [2.0, 2.5]
        with pytest.raises(Permanent, match=r"other.csv: .*day"):
            run_handler("sales-by-day", {"source": "other.csv"}, objects=objects)
    finally:
        default_registry._handlers.pop("sales-by-day", None)


def test_every_test_on_the_page_asserts_something() -> None:
    assert len(TESTS) == 6
    assert all("assert " in block or "check()" in block for block in TESTS)


def test_the_example_passes_its_own_tests() -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed: the thumbnails cannot be made")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "thumbnails"]
    ended = subprocess.run(command, cwd=EXAMPLE.parent, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "skipped" not in ended.stdout


def test_the_examples_lane_is_one() -> None:
    yaml = importlib.import_module("yaml")
    (job,) = yaml.safe_load_all((EXAMPLE / "jobs.yaml").read_text(encoding="utf-8"))
    spec = job["spec"]["template"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]} | {"CLOUD_RUN_JOB": "thumbnails", "BUCKET_NAME": "bucket"}
    settings = worker_settings(environment)
    annotations = job["metadata"]["annotations"]
    assert annotations["fanout/subscription"] == settings.subscription_name
    assert annotations["fanout/topic"] == settings.topic_name
    assert settings.task_timeout_s == spec["timeoutSeconds"]
    assert settings.handlers == ("batch.handlers", "thumbnails.handlers")
    memory_mb = int(re.findall(r"memory_mb=(\d+)", (EXAMPLE / "handlers.py").read_text(encoding="utf-8"))[0])
    assert container["resources"]["limits"]["memory"] == "2Gi"
    assert (settings.processes or 0) * memory_mb + 150 < 2048


def test_the_examples_image_puts_the_package_where_the_lane_looks_for_it() -> None:
    dockerfile = (EXAMPLE / "Dockerfile").read_text(encoding="utf-8")
    (copied,) = re.findall(r"^COPY (.*) /opt/fanout/app/thumbnails/$", dockerfile, re.MULTILINE)
    assert all((EXAMPLE / name).is_file() for name in [*copied.split(), "requirements.txt"])
    assert "PYTHONPATH=/opt/fanout/app" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
