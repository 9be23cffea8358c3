"""Options of a simulation: what they mean, and what is said of one that means nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batch.model.errors import SettingsError
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Fixed, HeavyTail, LogNormal
from controller.simulation.rivals import RIVALS
from fanout.simulation.options import changes_of, durations_of, given, lag_of, patterns_of, rivals_of, said, start_up_of


def test_what_options_mean() -> None:
    assert patterns_of("steady") == ("steady",)
    assert len(patterns_of("all")) > 5
    assert (lag_of("120"), lag_of("60-180")) == (Lag(120, 0), Lag(120, 60))
    assert (start_up_of("delayed"), start_up_of("4-12"), start_up_of("7")) == (StartUp(0, 43_200), StartUp(4, 12), StartUp(7, 7))
    assert changes_of("drain-within=5m, max-workers=50") == {"fanout/drain-within": "5m", "fanout/max-workers": "50"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1.5", Fixed(1.5)), ("lognormal:1.8:0.45", LogNormal(1.8, 0.45)), ("tail:1.8:0.002:30", HeavyTail(1.8, 0.002, 30.0))],
)
def test_message_times_are_read_and_said_again(text: str, expected: object) -> None:
    assert durations_of(text) == expected
    assert said(durations_of(text)) == text


def test_a_rival_is_a_kind_with_all_its_settings_or_one_of_them() -> None:
    one = next(name for name in RIVALS if name.startswith("keda-default "))
    assert rivals_of("none") == {}
    assert [rival.name for rival in rivals_of(one)["keda-default"]] == [one]
    found = rivals_of("cron, keda-eager")
    assert (list(found), len(found["cron"]) > 1) == (["cron", "keda-eager"], True)
    assert sum(map(len, rivals_of("all").values())) == len(RIVALS)


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (patterns_of, "stedy", "'stedy' is not known; did you mean steady?"),
        (lag_of, "two", "seconds such as 120, or from and to such as 60-180"),
        (lag_of, "180-60", "seconds such as 120, or from and to"),
        (lag_of, "-5", "seconds such as 120"),
        (lag_of, "nan", "seconds such as 120"),
        (start_up_of, "delay", "did you mean delayed?"),
        (durations_of, "0", "seconds such as 1.5, or lognormal"),
        (durations_of, "lognormal:1", "seconds such as 1.5, or lognormal"),
        (durations_of, "lognormal:1:9", "SIGMA is above 0 and at most 3"),
        (durations_of, "tail:1:2:30", "SHARE is above 0 and at most 1"),
        (changes_of, "drain-within", "'drain-within' is not NAME=VALUE"),
        (changes_of, "drain-withn=5m", "did you mean drain-within?"),
        (changes_of, "drain-within=5", "drain-within='5': a duration above 0"),
        (changes_of, "max-workers=1,max-workers=2", "max-workers is there twice"),
        (changes_of, "subscription=x", "'subscription' is not known"),
        (changes_of, ",", "NAME=VALUE"),
        (rivals_of, "kedadefault", "did you mean keda-default?"),
    ],
)
def test_what_means_nothing_is_told_in_one_line_with_its_option(parse: Callable[[str], object], text: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        given("--option", text, parse)
    (line,) = caught.value.problems
    assert line.startswith(f"--option {text!r}: ")
    assert told in line
