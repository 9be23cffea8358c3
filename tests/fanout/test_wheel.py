"""The wheel by itself, in a new environment outside the checkout: what it needs it says, and with it the demo runs."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support import clean_environment

ROOT = Path(__file__).resolve().parents[2]
LOCKED = ROOT / "requirements" / "demo.txt"
PIP = ("--quiet", "--disable-pip-version-check", "--no-compile")


class Place:
    """An empty folder with an environment of its own, into which no path and no setting of the checkout reaches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "env" / "bin"
        venv.create(folder / "env", with_pip=False, symlinks=True)

    def install(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", *PIP, *arguments]
        subprocess.run(pip, cwd=self.folder, check=True, timeout=100)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in clean_environment().items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [self.bin / program, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_wheel_says_what_it_needs_and_then_does_the_main_job(tmp_path: Path) -> None:
    place = Place(tmp_path)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^[\w.-]+==[^ \\]+", LOCKED.read_text(encoding="utf-8"), re.MULTILINE)))

    place.install("-c", str(constraints), str(wheel))
    assert place.run("python", "-m", "batch", "--help").returncode == 0
    for program, extra in ((("fanout",), "local"), (("python", "-m", "controller"), "controller"), (("python", "-m", "intake"), "intake")):
        bare = place.run(*program)
        assert (bare.returncode, bare.stdout, bare.stderr.count("\n")) == (2, "", 1), bare.stderr
        assert f"install 'fanout-batch[{extra}]'" in bare.stderr

    place.install("--require-hashes", "-r", str(LOCKED))
    demo = place.run("fanout", "demo", "--files", "30", "--plain")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert re.search(r"^proven: \d+ submitted = \d+ succeeded .* 1 dead, missing 0$", demo.stdout, re.MULTILINE)
    assert "name: bulk" in place.run("fanout", "render", "bulk").stdout
