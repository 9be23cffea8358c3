"""Field types that the built-in handlers' payloads share. A name that comes from a client passes `batch.model.names.checked`, always."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from batch.model.errors import NameRefused
from batch.model.names import checked

MAX_PROCESSING_TIME_S = 168 * 3600.0
"""The longest timeout that a Cloud Run task can have."""


def _checked(value: object, info: ValidationInfo) -> str:
    try:
        return checked(value, info.field_name or "name")
    except NameRefused as error:
        raise ValueError(str(error)) from error


ObjectName = Annotated[str, BeforeValidator(_checked)]
ColumnName = Annotated[str, Field(max_length=1000)]


class Payload(BaseModel):
    """What both handlers take. Fields that are not named here are allowed and ignored: they are the client's own.

    `processing_time` is slept before the work begins, in seconds: it makes a task as long as a demonstration needs.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    processing_time: float = Field(default=0.0, ge=0, le=MAX_PROCESSING_TIME_S, allow_inf_nan=False)
