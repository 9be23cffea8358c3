"""One bucket in memory and the built-in handlers, registered."""

from __future__ import annotations

import pytest

import batch.handlers  # noqa: F401 - importing registers the handlers
from batch.testing import MemoryObjectStore


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()
