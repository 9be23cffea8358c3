"""Handlers whose payload model refuses what it does not know, and a decoder."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from batch import Context, task


class Resize(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int
    height: int = 1


@task("resize", payload=Resize)
def resize(one: Any, ctx: Context) -> None:
    """Does nothing."""


def shouted(data: bytes) -> str:
    return data.decode().upper()
