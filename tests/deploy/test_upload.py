"""What Cloud Build gets of a checkout is what the image's tag is made of: nothing that the tag does not show, and no credentials."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.real_gcloud import find_gcloud
from tests.support import clean_environment

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.real]


def test_the_image_gets_what_its_tag_is_made_of(tmp_path: Path) -> None:
    find_gcloud()
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", str(checkout)], check=True)
    for name in ("gha-creds-1.json", "parameters.env", "batch/handlers/__pycache__/one.pyc"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("no part of an image")
    (named,) = re.findall(r"find (Dockerfile .*) -type f", (ROOT / "deploy" / "library.sh").read_text(encoding="utf-8"))
    command = ["gcloud", "meta", "list-files-for-upload", str(checkout)]
    environment = {**clean_environment(), "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")}
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    tracked = subprocess.run(["git", "ls-files", *named.split()], cwd=checkout, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted(tracked)
