"""Secrets as files in a folder: `NAME` holds the only version, or `NAME/1`, `NAME/2`, … hold several.

A file's content is the value, byte for byte; the file is read anew for every worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from local_cloud.run.spec.template import Env, SecretRef


class MissingSecret(Exception):
    """A worker cannot be started, because a secret or its version is gone; the message says which."""


class Secrets:
    """Every version that a reference names has been checked to be `latest` or a number, and every name to be one without a slash or dot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def missing(self, env: Env) -> Iterator[tuple[str, SecretRef]]:
        """The variables whose secret does not exist."""
        return ((name, value) for name, value in env if isinstance(value, SecretRef) and self._path(value) is None)

    def why(self, ref: SecretRef, project: str) -> str:
        name = ref.name.rpartition("/")[2]
        text = f"Secret projects/{project}/secrets/{name}/versions/{ref.version} was not found"
        return f"{text}: write its value into the file {self._folder / name}"

    def resolved(self, env: Env, project: str) -> dict[str, str]:
        """The variables with the values of their secrets. Raises MissingSecret."""
        return {name: self._value(value, project) if isinstance(value, SecretRef) else value for name, value in env}

    def _value(self, ref: SecretRef, project: str) -> str:
        path = self._path(ref)
        if path is None:
            raise MissingSecret(self.why(ref, project))
        return path.read_bytes().decode(errors="surrogateescape")

    def _path(self, ref: SecretRef) -> Path | None:
        """The file of the version; None when there is none."""
        path = self._folder / ref.name.rpartition("/")[2]
        if path.is_dir():
            numbers = [int(one.name) for one in path.iterdir() if one.name.isdecimal()]
            path /= str(max(numbers, default=0)) if ref.version == "latest" else ref.version
        elif ref.version not in ("latest", "1"):
            return None
        return path if path.is_file() else None
