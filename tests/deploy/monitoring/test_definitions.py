"""The files say what Google's types take, and name only what is there: metrics, labels, events, fields, runbooks, commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from google.cloud.monitoring_v3.types import Aggregation, AlertPolicy
from google.protobuf import json_format

from batch.events import EVENTS
from controller.simulation.given.scenario import Failures
from fanout.commands import COMMANDS, main
from tests.deploy.monitoring.definitions import (
    ALERT_FILES,
    DASHBOARD,
    FOLDER,
    METRIC_FILES,
    PLACEHOLDERS,
    dashboard,
    log_metrics,
    parsed,
    policies,
)
from tests.deploy.monitoring.filters import extracted_field, logging_filter, value_at
from tests.deploy.monitoring.incidents import filter_of
from tests.deploy.monitoring.series import LOG_RESOURCES, USER, Selected, Store, check_aggregation, selected
from tests.deploy.monitoring.simulated import every, job_changed, lane, no_lane, project

ROOT = Path(__file__).resolve().parents[3]
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
MODEL = Store(log_metrics())
NAMES = sorted(log_metrics())


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


def section(anchor: str) -> str:
    """What stands under the heading of an anchor."""
    parts = re.split(r"^(?=#{2,3} )", RUNBOOKS, flags=re.MULTILINE)
    return next(part for part in parts if anchor in anchors(part.splitlines()[0]))


def queries() -> list[tuple[str, str, list[Aggregation]]]:
    """Where a filter stands, the filter, and its aggregations."""
    found = []
    for name, policy in policies().items():
        for one in policy.conditions:
            kind = one.condition_absent if "condition_absent" in one else one.condition_threshold
            found.append((f"{name}: {one.display_name}", filter_of(one), list(kind.aggregations)))
    for tile in dashboard().mosaic_layout.tiles:
        for data in tile.widget.xy_chart.data_sets:
            one = data.time_series_query.time_series_filter
            found.append((tile.widget.title, one.filter, [_own(one.aggregation)]))
    return found


def _own(aggregation: Any) -> Aggregation:
    """A dashboard's aggregation, which is a type of its own with the same fields, as the other."""
    body = json_format.MessageToDict(type(aggregation).pb(aggregation))
    found: Aggregation = parsed(body, Aggregation)
    return found


def test_there_are_files() -> None:
    assert len(ALERT_FILES) == 7
    assert METRIC_FILES
    assert DASHBOARD.exists()


def test_a_field_that_google_does_not_know_is_refused() -> None:
    with pytest.raises(json_format.ParseError, match="no field named"):
        parsed({"displayName": "x", "thresold": 1}, AlertPolicy)


def test_placeholders_are_the_known_ones() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*ALERT_FILES, *METRIC_FILES, DASHBOARD)]
    assert {name for text in texts for name in re.findall(r"\$\{([A-Z][A-Z_]*)\}", text)} == set(PLACEHOLDERS)
    own = {name for text in texts for name in re.findall(r"\$\{([a-z][\w.]*)\}", text)}
    roots = {"metric.label.lane", "condition.display_name", "metric.labels.lane", "metric.labels.condition"}
    assert own <= {*roots, "metric.labels.result", "resource.labels.job_name"}


@pytest.mark.parametrize(("where", "text", "aggregations"), queries(), ids=[where for where, _, _ in queries()])
def test_filters_name_metrics_and_labels_that_exist_and_aggregations_that_fit(
    where: str, text: str, aggregations: list[Aggregation]
) -> None:
    found: Selected = selected(text, MODEL)
    assert aggregations, where
    for one in aggregations:
        check_aggregation(MODEL.kind(found.metric), one)


def test_every_metric_is_looked_at() -> None:
    used = {selected(text, MODEL).metric.removeprefix(USER) for _, text, _ in queries()}
    assert set(NAMES) <= used


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_has_what_google_asks_for(name: str) -> None:
    one = log_metrics()[name]
    descriptor = one.metric_descriptor
    assert descriptor.MetricKind.Name(descriptor.metric_kind) == "DELTA"
    assert {label.key for label in descriptor.labels} == set(one.label_extractors)
    is_distribution = descriptor.ValueType.Name(descriptor.value_type) == "DISTRIBUTION"
    assert is_distribution == bool(one.value_extractor) == ("bucket_options" in one)
    comparisons = {part.field: part.texts for part in logging_filter(one.filter)}
    (resource,) = comparisons["resource.type"]
    for field in comparisons:
        where, _, label = field.partition(".labels.")
        assert field in ("resource.type", "jsonPayload.event") or (where == "resource" and label in LOG_RESOURCES[resource])
    assert set(comparisons["jsonPayload.event"]) <= set(EVENTS)


def test_every_event_and_field_is_what_the_code_logs() -> None:
    """By running it: ticks over a simulated world, and the worker's own words for a dead task."""
    flow = lane(every(60, 20, 1800.0), failures=Failures(0.2, attempts=1))
    here = project(flow, lane((), name="wrong"), faults=[job_changed(0.0, no_lane, lane="wrong")])
    for name, metric in log_metrics().items():
        wanted = logging_filter(metric.filter)
        matches = [entry for _, entry in here.entries if all(one.holds(value_at(entry, one.field)) for one in wanted)]
        assert matches, f"{name}: nothing that is logged matches its filter"
        for expression in metric.label_extractors.values():
            assert all(isinstance(value_at(entry, extracted_field(expression)), str) for entry in matches), (name, expression)
        if metric.value_extractor:
            values = [value_at(entry, extracted_field(metric.value_extractor)) for entry in matches]
            assert [one for one in values if isinstance(one, int | float)], f"{name}: {metric.value_extractor} is never a number"


@pytest.mark.parametrize("name", sorted(policies()))
def test_a_policy_says_what_happened_and_leads_to_its_runbook(name: str) -> None:
    policy = policies()[name]
    document = policy.documentation
    assert policy.severity != AlertPolicy.Severity.SEVERITY_UNSPECIFIED
    assert policy.combiner == AlertPolicy.ConditionCombinerType.OR
    assert dict(policy.user_labels) == {"fanout": name}
    assert list(policy.notification_channels) == [PLACEHOLDERS["CHANNEL"]]
    assert policy.alert_strategy.auto_close.total_seconds() >= 1800  # the least that Google takes
    assert not policy.alert_strategy.notification_rate_limit  # for policies over log entries only
    assert "First: " in document.content
    assert len(document.content) < 8192
    (link,) = document.links
    page, _, anchor = link.url.partition("#")
    assert page == PLACEHOLDERS["RUNBOOKS"]
    assert f"({link.url})" in document.content
    assert anchor in anchors(RUNBOOKS), f"docs/runbooks.md has no section {anchor}"
    for part in ("What it means", "First look", "Likely causes", "It is over when", "To silence it"):
        assert f"**{part}" in section(anchor), f"{anchor}: {part}"


def test_conditions_have_durations_that_google_takes() -> None:
    for policy in policies().values():
        for one in policy.conditions:
            kind = one.condition_absent if "condition_absent" in one else one.condition_threshold
            least_s = 120 if "condition_absent" in one else 60  # which the control of missing data needs
            assert kind.duration.total_seconds() % 60 == 0
            assert kind.duration.total_seconds() >= least_s, one.display_name


def commands(text: str) -> set[str]:
    """Of `fanout …` in code, with its sub-command where it has some."""
    found = re.findall(r"`(fanout [^`]+)`|^(fanout .+?)(?: {2,}#.*)?$", text, re.MULTILINE)
    return {inline or line for inline, line in found}


@pytest.mark.parametrize("text", [RUNBOOKS, *(one.documentation.content for one in policies().values())], ids=["runbooks", *policies()])
def test_the_commands_of_runbooks_exist(text: str) -> None:
    found = [one.replace("…", "").strip() for one in commands(text)]
    for command in found:
        words = shlex.split(re.sub(r"\$\{[\w.]+\}", "x", command))[1:]
        assert words[0] in COMMANDS, command
        known = main.get_command(click.Context(main), words[0])
        if isinstance(known, click.Group) and len(words) > 1:
            known = known.get_command(click.Context(known), words.pop(1))
        assert known is not None, command
        options = {name for one in known.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
        assert not [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] not in options], command


def test_the_dashboard_is_one_column_for_a_phone() -> None:
    layout = dashboard().mosaic_layout
    bottom = 0
    for tile in layout.tiles:
        assert (tile.x_pos, tile.width, tile.y_pos) == (0, layout.columns, bottom)
        bottom += tile.height
    assert layout.columns <= 12


def test_nothing_else_lies_there() -> None:
    known = {*METRIC_FILES, *ALERT_FILES, DASHBOARD}
    assert {path for path in FOLDER.rglob("*") if path.is_file()} == known
