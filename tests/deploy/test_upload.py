"""What Cloud Build gets of a checkout is what the image's tag is made of: nothing that the tag does not show, and no credentials."""

from __future__ import annotations

import shutil
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
    for name in (".dockerignore", ".gcloudignore", "deploy/library.sh"):
        shutil.copy(ROOT / name, checkout / name)
    for name in ("gha-creds-1.json", "parameters.env", "batch/handlers/__pycache__/one.pyc"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("no part of an image")
    command = ["gcloud", "meta", "list-files-for-upload", str(checkout)]
    environment = {**clean_environment(), "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")}
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    script = ". deploy/library.sh; BASE_DIGEST='' sources"
    hashed = subprocess.run(["bash", "-c", script], cwd=checkout, env=environment, capture_output=True, text=True, check=True).stdout
    assert sorted(listed) == sorted(line.split()[0] for line in hashed.splitlines() if line)
    assert {one.split("/")[0] for one in listed} == {"Dockerfile", ".dockerignore", "batch", "controller", "intake", "requirements"}
