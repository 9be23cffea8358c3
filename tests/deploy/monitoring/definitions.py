"""The files of deploy/monitoring as Google's own types; a field that those do not know is refused."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from google.cloud.logging_v2.types import LogMetric
from google.cloud.monitoring_dashboard_v1.types import Dashboard
from google.cloud.monitoring_v3.types import AlertPolicy
from google.protobuf import json_format

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "monitoring"
METRIC_FILES = sorted((FOLDER / "metrics").glob("*.yaml"))
ALERT_FILES = sorted((FOLDER / "alerts").glob("*.json"))
DASHBOARD = FOLDER / "dashboard.json"
COST_A_DAY_USD = 1.5
PLACEHOLDERS = {
    "CHANNEL": "projects/my-project/notificationChannels/1",
    "RUNBOOKS": "https://example.com/docs/runbooks.md",
    "COST_A_DAY_USD": str(COST_A_DAY_USD),
}
"""What a deployment fills in; names in lower case (`${metric.label.lane}`) are Cloud Monitoring's own."""


def filled(text: str) -> Any:
    """A file as it is sent: text first, JSON after."""
    for name, value in PLACEHOLDERS.items():
        text = text.replace(f"${{{name}}}", value)
    assert not re.findall(r"\$\{[A-Z_]+\}", text), "a placeholder that nobody fills in"
    return json.loads(text)


def parsed(body: Any, kind: Any) -> Any:
    """A body as JSON has it, as one of Google's types. Raises ParseError for a field that the type does not have."""
    return kind.wrap(json_format.ParseDict(body, kind.pb(kind())))


@cache
def log_metrics() -> dict[str, LogMetric]:
    """By name, which is the file's."""
    return {path.stem: parsed(yaml.safe_load(path.read_text(encoding="utf-8")), LogMetric) for path in METRIC_FILES}


@cache
def policies() -> dict[str, AlertPolicy]:
    """By the name of their file."""
    return {path.stem: parsed(filled(path.read_text(encoding="utf-8")), AlertPolicy) for path in ALERT_FILES}


@cache
def dashboard() -> Dashboard:
    found: Dashboard = parsed(filled(DASHBOARD.read_text(encoding="utf-8")), Dashboard)
    return found
