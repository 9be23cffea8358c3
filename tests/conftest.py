"""Fixtures of all tests: services of the local cloud, started once a session. No cloud setting of the machine ever reaches a test."""

from __future__ import annotations

import gc
import logging
import os
import threading
import uuid
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import settings

from batch import logs
from batch.services import calls
from tests.google_emulator import google_pubsub
from tests.scheduling import longest_first
from tests.scheduling import scheduler as pytest_xdist_make_scheduler
from tests.support import Service, is_scrubbed, start_service

__all__ = ["google_pubsub", "pytest_xdist_make_scheduler"]

# Thousands of tests are collected, and stay: looking through them for garbage costs more than it finds.
gc.disable()

settings.register_profile("fanout", derandomize=True, deadline=None, database=None, print_blob=False)
settings.load_profile("fanout")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _scrubbed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in os.environ if is_scrubbed(one)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A process of Fanout's sets up logging for itself; here that ends with the test, after which records go through `logging` again."""
    own = logs.own.handler, logs.own.level, logs.own.project
    root = logging.getLogger()
    handlers, level, show, hook = [*root.handlers], root.level, warnings.showwarning, threading.excepthook
    yield
    logs.own.handler, logs.own.level, logs.own.project = own
    threading.excepthook = hook
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.showwarning = show


@pytest.fixture(autouse=True)
def _calls_are_a_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test does in its own process is no role's: only calls of processes of Fanout's are held against what roles may do."""
    monkeypatch.setattr(calls.role, "name", "test")


@pytest.fixture
def project() -> str:
    """A project id that no other test has: isolation without a reset."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def local_pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Pub/Sub and Monitoring on loopback: `grpc`, `http`. Gauges have no lag, so that a test sees what it has just done."""
    yield from _running("pubsub", tmp_path_factory, "--sample-period-s", "0", "--visibility-lag-s", "0")


@pytest.fixture(scope="session")
def local_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Cloud Storage on loopback: `http`."""
    yield from _running("storage", tmp_path_factory)


@pytest.fixture(scope="session")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Cloud Run Jobs on loopback: `http`."""
    yield from _running("run", tmp_path_factory)


def _running(name: str, tmp_path_factory: pytest.TempPathFactory, *options: str) -> Iterator[Service]:
    service = start_service(name, tmp_path_factory.mktemp(name), *options)
    yield service
    service.stop()
