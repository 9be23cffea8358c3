"""Handlers that tell what is in their environment."""

from __future__ import annotations

import os
from typing import Any

from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.message import Task

MODEL = os.environ["MODEL_PATH"]


@task("isolated-tells", isolation="process", retries=0)
def isolated(task: Task, ctx: Context) -> Any:
    return dict(os.environ)


@task("isolated-needs", isolation="process", retries=0)
def needs(task: Task, ctx: Context) -> str:
    return os.environ["API_TOKEN"]


@task("plain-needs", retries=0)
def plain(task: Task, ctx: Context) -> str:
    return os.environ["API_TOKEN"]
