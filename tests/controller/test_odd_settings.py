"""Annotations, settings, readings and rates at their limits and beyond: refused with a reason, or decided within the lane's bounds."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.decide.broken import Broken
from controller.decide.caps import Limits
from controller.decide.decision import from_json, to_json
from controller.decide.explanation import explained_decision
from controller.decide.ledger import Entry, Ledger
from controller.decide.policy import decision_for
from controller.decide.sizing import Rates
from controller.lanes.annotations import ANNOTATIONS
from controller.lanes.lanes import lanes_of
from controller.model.lane import Strategy
from controller.model.reading import Idle, Unknown, Value
from controller.observe.jobs import LANE_LABEL, JobInfo
from tests.controller.fakes import worker

NOW = 1e9
NUMBERS = (
    "0",
    "1",
    "-1",
    "100",
    "9" * 18,
    "9" * 400,
    "9" * 5000,
    "nan",
    "inf",
    "1e308",
    "5e-324",
    "1_000",
    "0x10",
    "\u0661\u0660",
    "\u00bd",
)
OTHERS = ("true", "", " 7 ", "\x00", "10m", "1s", "0s", "99999h", "9" * 400 + "d", *Strategy)
TEXTS = st.sampled_from((*NUMBERS, *OTHERS))
ODD_S = st.sampled_from([0.00005, 1.0, 1e6])
COUNTS = st.sampled_from([0, 1, 10**4, 2**63 - 1])
JOBS = st.builds(
    lambda annotations, concurrency, timeout_s, vcpu: JobInfo(
        "projects/p/locations/r/jobs/a",
        labels={LANE_LABEL: "a"},
        annotations={"fanout/subscription": "tasks-sub", "fanout/topic": "tasks", **annotations},
        containers=(replace(worker(annotations, CONCURRENCY=concurrency), limits={"cpu": vcpu}),),
        task_timeout_s=timeout_s,
    ),
    st.dictionaries(st.sampled_from([*sorted(ANNOTATIONS), "fanout/nope"]), TEXTS, max_size=4),
    TEXTS,
    st.sampled_from([0.0, 1.0, 600.0, 604_800.0]),
    st.sampled_from(["0", "0.08", "8", "many"]),
)
READINGS = st.one_of(
    st.builds(Value, COUNTS, st.sampled_from([NOW, NOW - 300, NOW + 50]), st.sampled_from([None, 0.0, 1e7, -5.0])),
    st.just(Idle()),
    st.just(Unknown("503")),
)
LIMITS = st.builds(
    Limits,
    st.sampled_from([None, 0.1, 1e308]),
    st.sampled_from([0.0, 1e9]),
    st.sampled_from([None, 0, 10**9]),
    st.sampled_from([None, -5, 0, 10**9]),
)


@settings(max_examples=100)
@given(
    JOBS,
    READINGS,
    st.none() | st.builds(Rates, ODD_S, st.sampled_from([0.0, 1e5]), st.sampled_from([0.0, 1e5]), st.none() | ODD_S),
    LIMITS,
    COUNTS,
    st.sampled_from([0, 1, 10**9]),
    st.sampled_from([None, 0.0, NOW, 2 * NOW]),
    st.booleans(),
)
def test_odd_settings_are_refused_or_decided_within_bounds(
    job: JobInfo,
    reading: Value | Idle | Unknown,
    rates: Rates | None,
    limits: Limits,
    accepted_count: int,
    live: int,
    waiting_since: float | None,
    broken: bool,
) -> None:
    lanes, refused = lanes_of([job])
    if not lanes:
        assert all(problem for one in refused for problem in one.problems)
        return
    (lane,) = lanes
    decision = decision_for(
        lane,
        reading,
        Ledger(0.0, (Entry("e", "d.0", True, live, live, live),) if live else ()),
        now=NOW,
        rates=rates,
        limits=limits,
        accepted_since_sample_count=accepted_count,
        waiting_since=waiting_since,
        broken=Broken("e", "how", 3, NOW - 7200) if broken else None,
    )
    assert 0 <= decision.workers <= max(0, lane.policy.max_workers)
    assert (decision.backlog > 0) == (decision.workers > 0)
    assert explained_decision(from_json(json.loads(json.dumps(to_json(decision), allow_nan=False))))
