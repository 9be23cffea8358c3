"""gcloud without its start: a server that has loaded it does each command in a fork. It is the real gcloud; only loading it is done once.

A tests' process that first needs it starts its server, which ends with that process. `gcloud` in the folder that comes first in PATH
is the Cloud SDK's own script with another interpreter, `client.py`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = Path("platform/bundledpythonunix/bin/python3")
"""The Python that comes with the Cloud SDK; its script takes it where it is."""


def warm_path(environment: dict[str, str]) -> str:
    """A PATH on which `gcloud` is quick; the one of `environment` where this is not known how."""
    path = environment.get("PATH", os.defpath)
    program = shutil.which("gcloud", path=path)
    folder = _started(program) if program else None
    return path if folder is None else f"{folder}{os.pathsep}{path}"


@cache
def _started(program: str) -> Path | None:
    """The folder of a server that does the commands of `program`; None when the Cloud SDK is not laid out as expected."""
    asked = subprocess.run([program], env={"PATH": os.defpath, "CLOUDSDK_PYTHON": "/bin/echo"}, capture_output=True, text=True, check=False)
    script = asked.stdout.split()[-1:] or [""]
    python = Path(script[0]).parent.parent / PYTHON
    if not (script[0].endswith("/lib/gcloud.py") and python.is_file()):
        return None
    folder = Path(tempfile.mkdtemp(prefix="gcloud-"))
    _write(folder / "python", f"#!{python} -IS\n{(HERE / 'client.py').read_text(encoding='utf-8')}")
    settings = f"CLOUDSDK_PYTHON={folder}/python CLOUDSDK_PYTHON_SITEPACKAGES=1"
    _write(folder / "gcloud", f'#!/bin/sh\n{settings} exec {program} "$@"\n')
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSDK_")}
    environment = {**inherited, "CLOUDSDK_CONFIG": str(folder), "CLOUDSDK_PYTHON_SITEPACKAGES": "1", "PYTHONIOENCODING": "UTF-8"}
    command = [str(python), str(HERE / "server.py"), script[0], str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    ready = process.stdout.readline()
    process.stdout.close()

    def stop() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    if not ready:
        stop()
        shutil.rmtree(folder, ignore_errors=True)
        return None
    atexit.register(stop)
    return folder


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700)
