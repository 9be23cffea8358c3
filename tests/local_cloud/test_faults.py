"""The script of faults by itself: order, ownership, rates, what is refused, and the routes that fill it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from local_cloud.clock import Clock
from local_cloud.faults.kinds import KINDS, MONITORING, PUBSUB, RUN, STORAGE, kinds_for, markdown
from local_cloud.faults.routes import fault_routes
from local_cloud.faults.script import BadFault, Fault, Script, read_fault
from local_cloud.faults.timers import Later
from local_cloud.web.service import HttpServer
from tests.local_cloud.manual_clock import ManualClock
from tests.support import wait_until


@pytest.fixture
def script() -> Script:
    """Of a Pub/Sub with three methods."""
    made = Script()
    for method in ("Pull", "Acknowledge", "Publish"):
        made.allow(method, kinds_for(PUBSUB, method))
    return made


def kinds(script: Script, project: str, method: str, count: int) -> list[str | None]:
    faults = [script.next(project, method) for _ in range(count)]
    return [fault.kind if fault else None for fault in faults]


def test_a_list_is_met_in_order_once(script: Script) -> None:
    script.add_list("p", "Pull", [Fault("unavailable"), Fault("ok"), Fault("empty_pull")])
    assert kinds(script, "p", "Pull", 5) == ["unavailable", None, "empty_pull", None, None]


def test_lists_follow_each_other_oldest_first(script: Script) -> None:
    script.add_list("p", "Pull", [Fault("unavailable")])
    script.add_list("p", "Pull", [Fault("empty_pull")])
    assert kinds(script, "p", "Pull", 3) == ["unavailable", "empty_pull", None]


def test_other_projects_and_methods_meet_nothing(script: Script) -> None:
    script.add_list("p", "Pull", [Fault("unavailable")])
    assert kinds(script, "q", "Pull", 2) == [None, None]
    assert kinds(script, "p", "Publish", 2) == [None, None]
    assert kinds(script, "p", "Pull", 1) == ["unavailable"]


def test_the_report_tells_what_was_met_and_what_not(script: Script) -> None:
    first = script.add_list("p", "Pull", [Fault("slow", seconds=2.0), Fault("slow", seconds=2.0), Fault("empty_pull")])
    script.add_list("q", "Pull", [Fault("unavailable")])
    kinds(script, "p", "Pull", 2)
    assert script.report("p") == {
        "faults": [
            {
                "id": first,
                "project": "p",
                "method": "Pull",
                "pending": [{"kind": "empty_pull"}],
                "met": [{"kind": "slow", "seconds": 2.0, "count": 2}],
            }
        ],
        "pending": 1,
        "met": 2,
    }
    both: Any = script.report()
    assert [entry["project"] for entry in both["faults"]] == ["p", "q"]


def test_clearing_forgets_one_project_and_says_what_was_left(script: Script) -> None:
    forgotten: list[str] = []
    script.on_clear(forgotten.append)
    script.add_list("p", "Pull", [Fault("unavailable")])
    script.add_list("q", "Pull", [Fault("empty_pull")])
    assert script.clear("p")["pending"] == 1
    assert forgotten == ["p"]
    assert kinds(script, "p", "Pull", 1) == [None]
    assert kinds(script, "q", "Pull", 1) == ["empty_pull"]
    script.clear("q")
    assert script.is_empty


def test_a_rate_is_repeatable_by_its_seed(script: Script) -> None:
    for project, seed in (("p", 7), ("q", 7), ("r", 8)):
        script.add_rate(project, "Publish", 0.3, seed, Fault("unavailable"))
    p, q, r = (kinds(script, project, "Publish", 500) for project in "pqr")
    assert p == q != r
    assert 100 < p.count("unavailable") < 200
    entry: Any = script.report("p")["faults"]
    assert (entry[0]["calls"], entry[0]["met"]) == (500, [{"kind": "unavailable", "count": p.count("unavailable")}])


@pytest.mark.parametrize(("rate", "met"), [(0.0, 0), (1.0, 50)])
def test_a_rate_of_0_is_never_and_one_of_1_always(script: Script, rate: float, met: int) -> None:
    script.add_rate("p", "Publish", rate, 1, Fault("unavailable"))
    assert kinds(script, "p", "Publish", 50).count("unavailable") == met


def test_a_list_goes_before_a_rate(script: Script) -> None:
    script.add_rate("p", "Pull", 1.0, 1, Fault("unavailable"))
    script.add_list("p", "Pull", [Fault("empty_pull"), Fault("ok")])
    assert kinds(script, "p", "Pull", 3) == ["empty_pull", None, "unavailable"]


def test_threads_share_a_list_without_loss(script: Script) -> None:
    script.add_list("p", "Pull", [Fault("unavailable")] * 400)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(kinds(script, "p", "Pull", 100).count("unavailable"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == 400


@given(st.lists(st.sampled_from(["unavailable", "empty_pull", "ok"]), min_size=1, max_size=12), st.integers(0, 20))
def test_every_fault_is_either_pending_or_met(names: list[str], call_count: int) -> None:
    script = Script()
    script.allow("Pull", kinds_for(PUBSUB, "Pull"))
    script.add_list("p", "Pull", [Fault(name) for name in names])
    met = kinds(script, "p", "Pull", call_count)
    assert met == [None if name == "ok" else name for name in names[:call_count]] + [None] * (call_count - len(names))
    report = script.report("p")
    assert (report["met"], report["pending"]) == (min(call_count, len(names)), max(0, len(names) - call_count))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("unavailable", Fault("unavailable")),
        ({"kind": "slow", "seconds": 2}, Fault("slow", seconds=2.0)),
        ({"kind": "few_messages", "count": 3}, Fault("few_messages", count=3)),
        ({"kind": "partial_body", "after_bytes": 0}, Fault("partial_body", after_bytes=0)),
        ({"kind": "reset_connection"}, Fault("reset_connection")),
    ],
)
def test_a_fault_is_read_and_shown_again(body: object, fault: Fault) -> None:
    assert read_fault(body) == fault
    assert read_fault(fault.to_json()) == fault


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("unavailabel", "did you mean 'unavailable'"),
        ({"kind": "slow"}, "slow needs seconds"),
        ({"kind": "slow", "seconds": -1}, "seconds is a number, 0 or more, got -1"),
        ({"kind": "slow", "seconds": "2"}, "seconds is a number"),
        ({"kind": "slow", "seconds": True}, "seconds is a number"),
        ({"kind": "few_messages", "count": 0}, "count is a whole number, 1 or more, got 0"),
        ({"kind": "few_messages", "count": 1.5}, "count is a whole number"),
        ({"kind": "unavailable", "seconds": 1}, "unavailable takes nothing beside its kind, got 'seconds'"),
        ({"kind": "slow", "seconds": 1, "count": 1}, "slow takes only seconds beside its kind, got 'count'"),
        ({}, "unknown kind of fault None"),
        (7, "a fault is a name or an object"),
    ],
)
def test_a_fault_that_means_nothing_is_refused(body: object, text: str) -> None:
    with pytest.raises(BadFault, match=re.escape(text)):
        read_fault(body)


def test_a_fault_that_a_method_cannot_meet_is_refused(script: Script) -> None:
    with pytest.raises(BadFault, match="Publish cannot meet empty_pull; it can meet: ok, unavailable"):
        script.add_list("p", "Publish", [Fault("empty_pull")])
    assert script.is_empty


def test_each_kind_can_be_met_somewhere_and_stands_in_the_table() -> None:
    text = markdown()
    for kind in KINDS.values():
        assert f"| `{kind.name}` |" in text
        assert any(kind.fits(service, method) for service in kind.services for method in kind.methods or ("any",))
    assert [kind.name for kind in kinds_for(PUBSUB, "StreamingPull")] == ["ok", "unavailable", "permission_denied"]
    assert "precondition_failed" not in [kind.name for kind in kinds_for(RUN, "jobs.run")]
    assert "late_ack" not in [kind.name for kind in kinds_for(STORAGE, "objects.get")]
    assert "effect_after" not in [kind.name for kind in kinds_for(MONITORING, "ListTimeSeries")]


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    """Where the routes answer."""
    server = HttpServer(Starlette(routes=list(fault_routes(script))), "127.0.0.1", 0)
    yield f"http://{server.start()}/faults"
    server.stop()


def test_the_routes_add_report_and_clear(url: str, script: Script) -> None:
    listed = requests.post(
        url, timeout=10, json={"project": "p", "method": "Pull", "faults": ["unavailable", {"kind": "slow", "seconds": 1}]}
    )
    rated = requests.post(
        url, timeout=10, json={"project": "p", "method": "Publish", "rate": 0.5, "seed": 7, "fault": {"kind": "unavailable"}}
    )
    assert (listed.json(), rated.json()) == ({"id": "1"}, {"id": "2"})
    script.next("p", "Pull")
    report = requests.get(url, timeout=60, params={"project": "p"}).json()
    assert report == script.report("p")
    assert (report["pending"], report["met"]) == (1, 1)
    assert requests.get(url, timeout=60, params={"project": "q"}).json() == {"faults": [], "pending": 0, "met": 0}
    assert requests.get(url, timeout=60).json() == report
    assert requests.delete(url, timeout=60, params={"project": "p"}).json() == report
    assert script.is_empty


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"project": "p", "method": "pul", "faults": ["unavailable"]}, "unknown method 'pul'; did you mean 'Pull'?"),
        ({"project": "p", "method": "acknowledge", "faults": ["unavailable"]}, "did you mean 'Acknowledge'?"),
        ({"project": "p", "method": "zzz", "faults": ["unavailable"]}, "known are: Acknowledge, Publish, Pull"),
        ({"project": "p", "method": "Pull", "fault": "unavailable"}, "unknown key 'fault'; did you mean 'faults'?"),
        ({"project": "p", "method": "Pull"}, "faults is missing"),
        ({"method": "Pull", "faults": ["unavailable"]}, "project is missing"),
        ({"project": "", "method": "Pull", "faults": ["unavailable"]}, "project is the id"),
        ({"project": 1, "method": "Pull", "faults": ["unavailable"]}, "project is a project's id"),
        ({"project": "p", "method": "Pull", "faults": []}, "one or more faults"),
        ({"project": "p", "method": "Pull", "faults": "unavailable"}, "faults is a list"),
        ({"project": "p", "method": "Pull", "rate": 2, "fault": "unavailable"}, "rate is a number from 0 to 1"),
        ({"project": "p", "method": "Pull", "rate": 0.1, "seed": "x", "fault": "unavailable"}, "seed a whole number"),
        ([], "an object with project, method and faults is wanted"),
    ],
)
def test_the_routes_refuse_with_what_would_be_right(url: str, script: Script, body: Any, text: str) -> None:
    answer = requests.post(url, timeout=60, json=body)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert script.is_empty


def test_the_routes_refuse_what_is_no_json_and_a_clearing_of_nobody(url: str) -> None:
    for body in (b"{", b"[" * 100_000, b'{"project": "\\ud800", "method": "Pull", "faults": ["ok"]}'):
        assert requests.post(url, timeout=60, data=body).status_code == 400
    assert requests.get(url, timeout=60).json()["faults"] == []  # what no answer can hold would have broken this one
    assert "say whose" in requests.delete(url, timeout=60).json()["error"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_later_runs_what_is_due_when_the_clock_is_moved(clock: Clock) -> None:
    later, done = Later(clock), []
    later.start()
    later.do(20.0, lambda: done.append("second"))
    later.do(10.0, lambda: done.append("first"))
    clock.advance(10.0)
    wait_until(lambda: done, description="the effect that is due")
    assert done == ["first"]
    clock.advance(10.0)
    wait_until(lambda: len(done) == 2, description="the other effect")
    later.stop()


def test_later_ends_pauses_and_drops_effects_when_it_stops(clock: Clock) -> None:
    later, done = Later(clock), []
    later.start()

    def pause() -> None:
        later.pause(3600.0)
        done.append("paused")

    pausing = threading.Thread(target=pause, daemon=True)
    pausing.start()
    later.do(1.0, lambda: done.append("effect"))
    wait_until(lambda: len(later._due) == 2, description="the pause")
    later.stop()
    pausing.join(60)
    assert not pausing.is_alive()
    later.pause(3600.0)
    clock.advance(3600.0)
    assert done == ["paused"]
