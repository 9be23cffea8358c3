"""The handlers that come with Fanout: `HANDLERS=batch.handlers` loads them. Importing does nothing but register the two task types."""

from __future__ import annotations

from batch.handlers import data_transformation, file_processing

__all__ = ["data_transformation", "file_processing"]
