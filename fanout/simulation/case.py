"""What a command simulates: the options that it shares with others, and the case that they make."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from batch.model.clock import SystemClock, iso
from batch.model.errors import SettingsError
from batch.prices import worker_usd_per_s
from controller.config import ControllerSettings
from controller.model.wording import duration
from controller.observe.arrivals import KEPT_S, LATE_S
from controller.simulation.given.arrivals import Arrivals, arrivals_from_csv, by_second
from controller.simulation.given.delays import START_UPS
from controller.simulation.given.durations import Durations
from controller.simulation.given.patterns import PATTERNS, Arriving, Pattern
from controller.simulation.given.scenario import Scenario
from controller.simulation.trials import Setting, scenario_of
from fanout import cloud
from fanout.explain import moment
from fanout.simulation.history import Itself, Recorded, recorded
from fanout.simulation.options import changes_of, durations_of, given, lag_of, patterns_of, said, start_up_of

CONCURRENCY = 4
SINCE = "24h"
IF_DELAYED: Mapping[str, str] = {"fanout/drain-within": "1d"}
"""What a lane is given, whose workers may start hours late: its default would be over before."""
USD_PER_S = worker_usd_per_s(1.0, 0.5)
"""Of a worker of the size that a lane has by default."""


@dataclass(frozen=True, slots=True)
class Case:
    """Patterns, or the one that a file or a lane's past makes; how they are run; `what_if`: annotations that are to be tried beside those
    of `setting`. `words` are the options that repeat it, `least_start_s` is the shortest start-up, `itself` is what the
    lane did."""

    patterns: tuple[Pattern, ...]
    setting: Setting
    seed: int
    words: tuple[str, ...]
    least_start_s: float
    what_if: Mapping[str, str] = field(default_factory=dict)
    usd_per_s: float = USD_PER_S
    is_delayed: bool = False
    itself: Itself | None = None

    def scenario(self, pattern: Pattern, changes: Mapping[str, str], seed: int | None = None, within_s: float | None = None) -> Scenario:
        """With `changes` over the lane's annotations; in time is what is done `within_s`, None: within the lane's `drain-within`."""
        setting = replace(self.setting, annotations={**self.setting.annotations, **changes})
        made = scenario_of(pattern, setting, self.seed if seed is None else seed)
        return replace(made, loads=tuple(replace(load, is_delayed=self.is_delayed, within_s=within_s) for load in made.loads))

    def repeated_by(self, command: str, *more: str) -> str:
        """The line that runs it again."""
        return shlex.join(["fanout", command, *self.words, *more, "--seed", str(self.seed)])


def case_options(*, lane_argument: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that say what is simulated; the command gets it as `case`. A lane is named as an argument, or with --from-history.
    Errors that Fanout can explain end the command."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @cloud.with_settings_if_needed
        @wraps(function)
        def command(*, settings: Callable[[], ControllerSettings], **given_options: Any) -> Any:
            asked = Asked(**{name: given_options.pop(name) for name in Asked.__dataclass_fields__})
            case = case_of(asked, settings)
            if lane_argument and asked.from_history:
                case = replace(case, words=case.words[1:])
            return function(case=case, **given_options)

        for option in reversed([_LANE_ARGUMENT if lane_argument else _LANE_OPTION, *_OPTIONS]):
            command = option(command)
        return command

    return decorated


_LANE_ARGUMENT = click.argument("from_history", metavar="[LANE]", default="")
_LANE_OPTION = click.option(
    "--from-history", default="", metavar="LANE", help="What came to a lane, as Cloud Monitoring keeps it: six weeks."
)
_OPTIONS = (
    click.option("--pattern", default="", help=f"A pattern of arrivals: {', '.join(PATTERNS)}; or all."),
    click.option("--arrivals", default="", type=click.Path(), help="A CSV file of arrivals: time,count; --message-s is needed."),
    click.option("--since", default="", metavar="TIME", help=f"Of a lane: from then on, as for fanout explain --at. [default: {SINCE}]"),
    click.option("--until", default="", metavar="TIME", help="Of a lane: up to then; five minutes ago by default."),
    click.option("--what-if", default="", metavar="NAME=VALUE,...", help="Annotations to try, such as drain-within=5m,max-workers=50."),
    click.option("--lag", default="60-180", show_default=True, help="How late the gauge is, in seconds: 120, or from-to."),
    click.option(
        "--start-up", default="", help=f"Of workers: {', '.join(START_UPS)}, or seconds from-to. [default: ordinary, a lane's own]"
    ),
    click.option("--message-s", default="", help="Seconds of a message: 1.5, lognormal:MEDIAN:SIGMA or tail:MEDIAN:SHARE:TAIL."),
    click.option("--concurrency", type=click.IntRange(1, 1000), help="Tasks that a worker runs at a time. [default: 4, a lane's own]"),
    click.option("--horizon", default="", help="How much time is simulated, such as 4h; what has come by then is finished."),
    click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="The same seed gives the same run."),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options, as they were given; empty: not given."""

    pattern: str
    arrivals: str
    from_history: str
    since: str
    until: str
    what_if: str
    lag: str
    start_up: str
    message_s: str
    concurrency: int | None
    horizon: str
    seed: int


def case_of(asked: Asked, settings: Callable[[], ControllerSettings]) -> Case:
    """Raises SettingsError; of a lane's past also DependencyError, StateUnreadable."""
    sources = {"--pattern": asked.pattern, "--arrivals": asked.arrivals, "--from-history": asked.from_history}
    named = [name for name, text in sources.items() if text]
    if len(named) != 1:
        raise SettingsError([f"{'only ' if named else ''}one is needed of --pattern, --arrivals and a lane: it says what is to come"])
    if (asked.since or asked.until) and not asked.from_history:
        raise SettingsError(["--since and --until are of a lane's past; of a pattern or a file --horizon says how much is simulated"])
    lag = given("--lag", asked.lag, lag_of)
    durations = given("--message-s", asked.message_s, durations_of) if asked.message_s else None
    start_up = given("--start-up", asked.start_up, start_up_of) if asked.start_up else None
    horizon_s = given("--horizon", asked.horizon, duration) if asked.horizon else None
    what_if = given("--what-if", asked.what_if, changes_of) if asked.what_if else {}
    words = [named[0], sources[named[0]]]
    past: Recorded | None = None
    if asked.from_history:
        since, until = _period(asked)
        words += ["--since", iso(since), "--until", iso(until)]
        made = settings()
        with cloud.connected(made) as outside, cloud.open_arrivals(made) as reader:
            past = recorded(outside, reader, asked.from_history, since, until)
        durations = durations or past.durations
    patterns = _patterns(asked, past, durations)
    start_up = start_up or (past.start_up if past else None) or START_UPS["ordinary"]
    concurrency = asked.concurrency or (past.lane.concurrency if past else CONCURRENCY)
    words += ["--lag", asked.lag, "--start-up", asked.start_up or f"{start_up.low_s:g}-{start_up.high_s:g}"]
    words += ["--message-s", said(durations)] if durations else []
    options = {"--concurrency": str(concurrency), "--horizon": asked.horizon, "--what-if": asked.what_if}
    words += [word for option, value in options.items() if value for word in (option, value)]
    is_delayed = start_up == START_UPS["delayed"]
    setting = Setting(lag, start_up, past.annotations if past else IF_DELAYED if is_delayed else {}, concurrency, horizon_s=horizon_s)
    case = Case(patterns, setting, asked.seed, tuple(words), start_up.low_s, what_if, is_delayed=is_delayed)
    if past is None:
        return case
    setting = replace(setting, task_timeout_s=past.lane.task_timeout_s)
    return replace(case, setting=setting, usd_per_s=past.usd_per_s, is_delayed=past.lane.is_delayed, itself=past.itself)


def _period(asked: Asked) -> tuple[float, float]:
    now = SystemClock().now()
    since = given("--since", asked.since or SINCE, lambda text: moment(text, now))
    until = given("--until", asked.until, lambda text: moment(text, now)) if asked.until else now - LATE_S
    if not now - KEPT_S <= since < until <= now:
        raise SettingsError([f"--since {asked.since or SINCE!r}: a time before {iso(until)}, at most six weeks ago, is needed"])
    return since, until


def _patterns(asked: Asked, past: Recorded | None, durations: Durations | None) -> tuple[Pattern, ...]:
    if asked.pattern:
        known = [PATTERNS[name] for name in given("--pattern", asked.pattern, patterns_of)]
        return tuple(replace(one, durations=durations) if durations else one for one in known)
    if durations is None:
        why = f"lane {asked.from_history} has learned nothing yet" if past else "a file says when messages come, not how long they take"
        raise SettingsError([f"--message-s is needed: {why}"])
    arrivals = past.arrivals if past else _from_file(asked.arrivals)
    return (Pattern(past.lane.name if past else "arrivals", _fixed(arrivals), durations, arrivals[-1][0] + 1),)


def _from_file(path: str) -> Arrivals:
    try:
        return arrivals_from_csv(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"--arrivals {path}: it cannot be read: {getattr(error, 'strerror', None) or error}"]) from error
    except SettingsError as error:
        raise SettingsError([f"--arrivals {path}: {problem}" for problem in error.problems]) from error


def _fixed(arrivals: Arrivals) -> Arriving:
    """The same with every seed."""
    return lambda _rng, horizon_s, _scale: by_second(arrivals, horizon_s)
