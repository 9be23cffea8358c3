"""The comparison of the simulation with the local cloud: when it holds, its table, and what the model is told."""

from __future__ import annotations

from bench.page import RESULTS, block
from bench.recording import Measure, Recording, read
from bench.validation import CASES, MODEL, NAME, PAGE, REAL, Case, Drain, Machine, compared, measures, scenario, simulated, text

BATCH = Case("batch", ((1.0, 96),), 3.0, {"fanout/drain-within": "40s", "fanout/max-workers": "5"})
HERE = Machine(start_up_s=5.0, idle_tail_s=5.0, overhead_s=0.01)


def found(*cases: tuple[float, int, float, int]) -> list[Measure]:
    """Of each case the seconds and workers, real and simulated."""
    return [
        one
        for number, (real_s, real_workers, model_s, model_workers) in enumerate(cases)
        for one in measures(Case(f"case-{number}", ((0.0, 1),), 1.0, {}), Drain(real_s, real_workers), [Drain(model_s, model_workers)] * 3)
    ]


def test_the_docs_show_what_was_recorded() -> None:
    assert block(NAME, text(read(RESULTS / f"{NAME}.json"))) in PAGE.read_text(encoding="utf-8"), f"run `python -m bench.{NAME} --record`"


def test_it_holds_when_all_drains_are_close_and_workers_are_as_many() -> None:
    assert compared(found((100.0, 3, 105.0, 3), (100.0, 2, 119.0, 2), (50.0, 1, 46.0, 1))).holds


def test_it_does_not_hold_when_the_middle_or_the_worst_is_far_off_or_workers_differ() -> None:
    middle = compared(found((100.0, 3, 111.0, 3), (100.0, 3, 89.0, 3), (100.0, 3, 100.0, 3)))
    assert (middle.middle_percent, middle.holds) == (11.0, False)
    worst = compared(found((100.0, 3, 79.0, 3), (100.0, 3, 100.0, 3), (100.0, 3, 100.0, 3)))
    assert (worst.worst_percent, worst.holds) == (21.0, False)
    assert not compared(found((100.0, 3, 100.0, 4), (100.0, 3, 100.0, 3))).holds


def test_the_model_s_middle_seed_counts() -> None:
    models = [Drain(seconds, workers) for seconds, workers in ((90.0, 3), (100.0, 3), (300.0, 7))]
    (row,) = compared(measures(BATCH, Drain(100.0, 3), models)).rows
    assert (row.workers, row.drains_s, row.off_percent) == ((3, 3), (100.0, 100.0), 0.0)


def test_the_table() -> None:
    recording = Recording("python -m bench.validation", "2026-01-02T03:04:05Z", 0.5, {"cores": "2"}, found((100.0, 3, 105.0, 3)))
    lines = text(recording).splitlines()
    assert lines[2] == f"| case | workers, {REAL} | workers, {MODEL} | drain, {REAL} | drain, {MODEL} | off by |"
    assert lines[4] == "| case-0 | 3 | 3 | 100.0 s | 105.0 s | +5 % |"
    assert lines[6] == "Off by 5 % in the middle, 5 % at worst (wanted: 10 %, 20 %, and the same numbers of workers)."


def test_a_case_is_simulated_with_what_was_measured() -> None:
    """Five workers take 20, 19 ... messages of 3 s, four at a time: five rounds after the launch at 10 s, and 5 s of start-up."""
    drain = simulated(BATCH, HERE, 1)
    assert (drain.workers, drain.launches) == (5, [(10.0, 5)])
    assert 29.0 < drain.drain_s < 29.2
    assert scenario(BATCH, HERE, 1).loads[0].is_taught is False


def test_no_case_keeps_more_than_six_workers_alive_or_sends_short_messages() -> None:
    assert len(CASES) == 5
    assert all(int(one.annotations["fanout/max-workers"]) <= 6 and one.message_s >= 0.5 for one in CASES)
