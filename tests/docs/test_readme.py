"""What README.md leads a newcomer through on a laptop works as it stands, in one shell, in this order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from batch.prices import worker_usd_per_s
from controller.decide.sizing import Rates, WorkerCost, cost_usd, drain_s
from local_cloud.supervisor.supervisor import free_port
from tests.support import clean_environment

ROOT = Path(__file__).resolve().parents[2]
GREETINGS = ".local-cloud/up/storage/buckets/my-bucket/greetings/*"


def script() -> str:
    """The blocks between the demo and Google Cloud; the module goes where the text says. Ports are free ones, and nothing is timed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text[text.index("## Step by step") : text.index("## On Google Cloud")]
    parts = ["set -em"]
    for language, body in re.findall(r"```(\w+)\n(.*?)```", part, re.DOTALL):
        parts.append(body if language == "sh" else f"mkdir my_team; cat > my_team/handlers.py <<'END'\n{body}END")
    whole = "\n".join(parts)
    for port in ("8080", "8081"):
        whole = whole.replace(port, str(free_port("127.0.0.1")))
    return whole.replace("sleep 5; cat", f"until ls {GREETINGS}; do sleep 0.2; done; cat")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_steps_on_a_laptop(tmp_path: Path) -> None:
    for name in ("README.md", "docs", "jobs.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = Path(sys.executable).parent
    (tmp_path / ".venv").symlink_to(commands.parent)
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            ["bash", "-c", script()], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
    finally:
        subprocess.run([commands / "fanout", "local", "down"], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hello Ada" in done.stdout
    assert '"status":"submitted"' in done.stdout
    assert "launched default-" in done.stdout
    assert "Traceback" not in done.stderr


def test_what_a_job_for_each_message_costs_is_what_decisions_are_made_with() -> None:
    worker, rates = WorkerCost(8, worker_usd_per_s(1, 1)), Rates(0.5, 10.0, 10.0)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for count, usd in ((1000, "1.20"), (10, "0.012"), (1, "0.0017")):
        row = rf"\| {count:,} \| {1000 // count:,} \| {drain_s(1000, count, rates, worker):g} s \| [^|]* \| \$(\S+) \|"
        (told,) = re.findall(row, text)
        cost = cost_usd(1000, count, rates, worker)
        assert told == usd == f"{cost:.{len(usd) - 2}f}"
