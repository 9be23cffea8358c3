"""The local cloud as everybody's outside, for tests that start real workers."""

from __future__ import annotations

from tests.controller.conftest import cloud, local_pubsub

__all__ = ["cloud", "local_pubsub"]
