"""`fanout simulate`: who costs what, the line that repeats it, pictures, and what is said of what cannot be."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import Result

from batch.model.clock import iso
from batch.model.names import history_object
from controller.act.intents import id_begin
from controller.act.state import LaneState, save
from controller.config import MONITORING_EMULATOR, controller_settings
from controller.decide.rates import Learned, Sample
from controller.simulation.given.durations import Fixed, LogNormal
from controller.simulation.running import Point
from fanout import cloud
from fanout.simulation import comparing
from fanout.simulation.comparing import Outcome, wins
from fanout.simulation.history import durations_from, itself_from, start_up_from
from fanout.simulation.page import page
from fanout.simulation.picture import picture
from fanout.simulation.simulate import command, listing, wins_listing
from tests.controller.fakes import World
from tests.fanout.simulation.conftest import Past, Simulate
from tests.support import Service

ONE_RIVAL = "keda-default max_workers=100 min_workers=0 poll_s=30 target=100"


def test_a_table_and_the_line_that_repeats_it(simulate: Simulate, few: str, run: Callable[..., Result]) -> None:
    result = simulate("--rivals", ONE_RIVAL, "--what-if", "drain-within=5m")
    header, *lines = result.output.splitlines()
    assert header.split() == ["PATTERN", "WHO", "COST", "BOUND", "WORKERS", "EMPTY", "IN", "TIME"]
    assert [line.split()[1] for line in lines[:3]] == ["fanout", "what-if", "keda-default"]
    assert lines[0].split()[2:] == ["$0.0011", "1.00x", "1", "0", "100.0", "%"]
    assert lines[3:5] == ["what-if: drain-within=5m", f"keda-default: {ONE_RIVAL}"]
    program, name, *options = shlex.split(lines[5].removeprefix("repeat: "))
    assert (program, name, options[-2:]) == ("fanout", "simulate", ["--seed", "1"])
    assert run(command, *options).output == result.output


def test_json_has_the_same(simulate: Simulate) -> None:
    body = json.loads(simulate("--json", "--seed", "7").output)
    (one,) = body["runs"]
    assert (one["who"], one["done_count"], one["late_count"], one["empty_count"], one["ratio"]) == ("fanout", 80, 0, 0, 1.0)
    assert (body["wins"], body["itself"], body["repeat"][-8:]) == ({"fanout": {}}, None, "--seed 7")


def outcome(pattern: str, who: str, cost_s: float, late_count: int = 0) -> Outcome:
    course = tuple(Point(60.0 * at, 100 - 10 * at, 1, cost_s * at / 10) for at in range(11))
    return Outcome(pattern, who, "", cost_s, cost_s / 1e5, 100.0, 3, 2, 0, 1000, late_count, course)


def test_who_is_cheaper_at_the_price_of_deadlines_does_not_win() -> None:
    cells = [outcome("a", "x", 120), outcome("a", "y", 150), outcome("b", "x", 120), outcome("b", "y", 110, late_count=50)]
    assert wins(cells) == {"x": {"y": 1}, "y": {"x": 0}}
    assert wins_listing(cells).rows == (("1 x", "", "1"), ("2 y", "0", ""))


def test_every_row_fits_into_eighty_columns() -> None:
    rows = [outcome("retry-storm", "backlog-per-instance", 123_456.0)]
    assert max(map(len, comparing_lines(rows))) <= 80


def comparing_lines(rows: list[Outcome]) -> list[str]:
    from fanout.output import plain

    return plain(listing(rows))


def test_of_a_kind_of_rival_the_one_setting_is_shown_that_is_best_over_all_patterns() -> None:
    dear, late, best = ([outcome("a", "r", cost, late), outcome("b", "r", cost, late)] for cost, late in ((900, 0), (100, 500), (300, 5)))
    assert min((dear, late, best), key=comparing.merit) == best


def test_pictures_and_the_page_need_nothing_beside_themselves(tmp_path: Path, simulate: Simulate) -> None:
    svg, html = tmp_path / "a.svg", tmp_path / "a.html"
    assert simulate("--picture", str(svg), "--html", str(html)).exit_code == 0
    assert ElementTree.fromstring(svg.read_bytes()).tag.endswith("svg")
    text = html.read_text(encoding="utf-8")
    assert text.count("<svg") == 1
    assert not [url for url in re.findall(r"https?://[^\"'<> ]*", text) if not url.startswith("http://www.w3.org/")]
    assert not re.search(r"(?:src|@import|url\((?!#))", text)
    assert text[text.index("<svg") :].startswith(svg.read_text(encoding="utf-8").partition("<svg")[2].partition("</svg>")[0], 4), (
        "twice the same"
    )


def test_a_picture_of_nothing_at_all() -> None:
    nothing = [replace(outcome("a", "x", 0), done_count=0, course=())]
    assert picture(nothing, "png").startswith(b"\x89PNG")


def test_texts_of_the_page_are_escaped() -> None:
    one = outcome("a", "<b>&$x$", 120)
    text = page([one], listing([one]), "fanout simulate '<i>'")
    assert "<b>" not in text
    assert "<i>" not in text
    assert text.count("&lt;b&gt;&amp;$x$") == 2


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, simulate: Simulate) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.setattr("fanout.simulation.simulate.outcomes_of", lambda *_: pytest.fail("told before the simulation"))
    result = simulate("--html", str(tmp_path / "a.html"))
    assert (result.exit_code, result.output) == (
        2,
        "Error: pictures need matplotlib, which is not installed: install 'fanout-batch[simulation]'\n",
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "one is needed of --pattern, --arrivals and a lane"),
        (["--pattern", "steady", "--arrivals", "x.csv"], "only one is needed of --pattern"),
        (["--pattern", "stedy"], "--pattern 'stedy': 'stedy' is not known; did you mean steady?"),
        (["--pattern", "batch", "--lag", "x"], "--lag 'x': seconds such as 120"),
        (["--pattern", "batch", "--horizon", "4"], "--horizon '4': a duration above 0"),
        (["--pattern", "batch", "--rivals", "kda-eager"], "did you mean keda-eager?"),
        (["--pattern", "batch", "--picture", "x.gif"], "--picture 'x.gif': a file whose name ends with .svg or .png"),
        (["--pattern", "batch", "--html", "/nowhere/x.html"], "--html '/nowhere/x.html': it cannot be written"),
        (["--pattern", "batch", "--what-if", "max-workers=0"], "--what-if 'max-workers=0': max-workers='0': "),
        (["--pattern", "batch", "--what-if", "min-workers=9,max-workers=2"], "fanout/min-workers=9 must not be above fanout/max-workers=2"),
        (["--arrivals", "nowhere.csv", "--message-s", "1"], "--arrivals nowhere.csv: it cannot be read: No such file or directory"),
        (["--pattern", "batch", "--since", "3d"], "--since and --until are of a lane's past"),
        (["--pattern", "batch", "--until", "2h"], "--since and --until are of a lane's past"),
        (["--arrivals", "nowhere.csv"], "--message-s is needed: a file says when messages come, not how long they take"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(run: Callable[..., Result], options: list[str], told: str) -> None:
    result = run(command, *options)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert told in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("time,count\n60,1\n0,1\n", "line 3: the times are in order, got '0'"),
        ("time,count\n0,-1\n", "line 2: a count is a whole number from 0"),
        ("0,1\n", "line 1: the header time,count is expected"),
    ],
)
def test_a_file_that_is_none_is_told_with_its_line(run: Callable[..., Result], tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    result = run(command, "--arrivals", str(path), "--message-s", "1")
    (line,) = result.output.splitlines()
    assert (result.exit_code, line.startswith(f"Error: --arrivals {path}: arrivals, {told}")) == (2, True)


def taught(*seconds: float) -> Learned:
    return Learned(tuple(Sample(one, 100, start_up_s=5.0 + one) for one in seconds), ("e",))


def test_message_times_and_start_up_are_what_workers_had() -> None:
    assert durations_from(Learned()) is None
    assert durations_from(taught(2.0, 2.0)) == Fixed(2.0)
    spread = durations_from(taught(1.0, 2.0, 2.0, 2.0, 4.0, 4.0))
    assert isinstance(spread, LogNormal)
    assert (spread.median_s, spread.sigma) == (2.0, 0.824)
    found = start_up_from(taught(1.0, 2.0, 3.0, 4.0, 5.0))
    assert found is not None
    assert (found.low_s, found.high_s) == (6.0, 9.0)


def test_a_lanes_past_beside_what_it_launched_itself(here: World, past: Past, run: Callable[..., Result]) -> None:
    now = here.clock.now()
    past.points["tasks-sub"] = [(now - 3600 + 60 * minute, 20 if minute < 5 else 0) for minute in range(50)]
    launch = {"kind": "launch", "workers": 3, "predicted_cost_usd": 0.25, "decision_id": "d", "decided_at": iso(now - 3000)}
    for name, decision in (("d", launch), ("e", {**launch, "kind": "hold"})):
        here.store.write(history_object("default", now - 3000, f"{id_begin(now - 3000)}-{name}"), json.dumps(decision).encode())
    here.store.write(history_object("default", now - 4000, f"{id_begin(now - 4000)}-c"), json.dumps(launch).encode())
    save(here.store, LaneState("default", learned=taught(1.5, 1.5)), 0, "t")
    result = run(command, "--from-history", "default", "--since", "1h", "--what-if", "max-wait=1m")
    lines = result.output.splitlines()
    assert lines[1].split() == ["default", "the", "lane", "itself", "$0.2500", "-", "3", "-", "-"]
    assert [line.split()[1] for line in lines[2:4]] == ["fanout", "what-if"]
    assert past.asked == [("tasks-sub", now - 3600, now - 300)]
    repeat = shlex.split(lines[-1])
    assert repeat[repeat.index("--since") + 1 : repeat.index("--since") + 4 : 2] == [iso(now - 3600), iso(now - 300)]
    assert repeat[repeat.index("--message-s") + 1] == "1.5"
    assert run(command, *repeat[3:]).output == result.output


def test_a_lanes_past_is_read_with_the_real_client(local_pubsub: Service, project: str) -> None:
    environment = {"GOOGLE_CLOUD_PROJECT": project, "BUCKET_NAME": "b", MONITORING_EMULATOR: local_pubsub.grpc}
    with cloud.open_arrivals(controller_settings(environment)) as reader:
        assert reader.read("tasks-sub", 0.0, 60.0) == []


def test_a_lane_that_launched_nothing_and_one_whose_costs_were_not_known() -> None:
    assert (itself_from([]).launch_count, itself_from([]).cost_usd) == (0, None)
    unknown = {"kind": "launch", "workers": 2, "predicted_cost_usd": None}
    assert itself_from([unknown]).cost_usd is None
    known = {**unknown, "predicted_cost_usd": 0.25}
    assert itself_from([known, unknown]).cost_usd is None, "the cost of one launch is not that of two"
    assert itself_from([known, {**unknown, "actual_cost_usd": 0.5}]).cost_usd == 0.75


@pytest.mark.parametrize("odd", [{"workers": None}, {"workers": "many"}, {"predicted_cost_usd": "x"}, {"predicted_cost_usd": [1]}])
def test_a_kept_decision_that_is_damaged_is_left_out(odd: dict[str, object]) -> None:
    sound = {"kind": "launch", "workers": 2, "predicted_cost_usd": 0.25}
    assert itself_from([sound, {**sound, **odd}]) == itself_from([sound])


def test_workers_that_start_hours_late_have_a_day_by_default(simulate: Simulate) -> None:
    result = simulate("--start-up", "delayed")
    assert (result.exit_code, result.output.splitlines()[1].split()[-2:]) == (0, ["100.0", "%"]), result.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--from-history", "defalt"], "there is no lane 'defalt'; did you mean default?"),
        (["--from-history", "bulk"], "lane bulk: Cloud Monitoring has no point of its subscription from "),
        (["--from-history", "default"], "--message-s is needed: lane default has learned nothing yet"),
        (["--from-history", "default", "--since", "60d"], "--since '60d': a time before "),
        (["--from-history", "default", "--since", "1m"], "--since '1m': a time before "),
        (["--from-history", "default", "--since", "soon"], "--since 'soon': a time such as"),
    ],
)
def test_a_past_that_is_not_there(here: World, past: Past, run: Callable[..., Result], options: list[str], told: str) -> None:
    past.points["tasks-sub"] = [(here.clock.now() - 600, 20)]
    result = run(command, *options)
    (line,) = result.output.splitlines()
    assert (result.exit_code, told in line) == (2, True), line


def test_a_pattern_by_itself_needs_no_cloud(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("fanout.simulation.simulate._tell_progress", told.append)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "")
    result = run(command, "--pattern", "trickle", "--horizon", "10m")
    assert (result.exit_code, told) == (0, ["trickle: fanout"])
