"""The benchmark of sizing: what it records and what of it the docs show."""

from __future__ import annotations

from bench.page import RESULTS, block
from bench.recording import Recording, read
from bench.sizing import DEFAULT, LAGS_S, NAME, PAGE, PATIENT, Result, by_cell, cells_of, measures, text
from controller.simulation.rivals import RIVALS

RIVAL = next(iter(RIVALS))


def results(*, rival: float) -> list[Result]:
    own = [Result("batch", lag_s, seed, who, 1.0 + seed / 100, 1.0, 0) for lag_s in LAGS_S for seed in (1, 2) for who in (PATIENT, DEFAULT)]
    return [*own, *(Result("batch", lag_s, 1, RIVAL, rival, 1.0, 3) for lag_s in LAGS_S)]


def recording(*found: Result) -> Recording:
    return Recording("python -m bench.sizing", "2026-01-02T03:04:05Z", 0.5, {"cores": "2"}, measures(by_cell(found)), [])


def test_the_docs_show_what_was_recorded() -> None:
    assert block(NAME, text(read(RESULTS / f"{NAME}.json"))) in PAGE.read_text(encoding="utf-8"), f"run `python -m bench.{NAME}`"


def test_what_is_recorded_is_what_was_measured() -> None:
    found = results(rival=1.2)
    assert sorted(str(one) for cell in cells_of(recording(*found)).values() for runs in cell.values() for one in runs) == sorted(
        map(str, found)
    )


def test_a_rival_that_is_cheaper_is_told_with_where() -> None:
    assert text(recording(*results(rival=1.2))).splitlines()[10].endswith("| 1.20 | 100.0 % | nowhere |")
    assert text(recording(*results(rival=1.002))).splitlines()[10].endswith("| batch 120 s, batch 180 s, batch 60 s |")
    assert text(recording(*results(rival=1.009))).splitlines()[10].endswith("| nowhere |"), "as good as the same"
