"""`fanout dead show` and `replays`: one task's death in full, and what became of what was replayed."""

from __future__ import annotations

import importlib
import json
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from batch.dead import segments
from batch.dead.filters import Filter
from batch.dead.history import fates, lines_about
from batch.dead.letters import Letter, to_line
from batch.dead.log import Entry, Fold, entry_line
from batch.dead.selecting import edited
from batch.model.clock import SystemClock, from_iso
from batch.model.errors import ObjectMissing
from batch.model.texts import printable
from controller.config import ControllerSettings
from controller.model.wording import rough
from fanout import cloud
from fanout.dead.scope import Scope, opened
from fanout.output import NONE, Listing, counted, say, show_json
from fanout.output import show as show_listing

SHOWN = 5
MAX_UNZIPPED = 64_000_000
Decoder = Callable[[bytes], Any]
_GZIP = b"\x1f\x8b"


@click.command()
@click.argument("task_id")
@click.option("--lane", "lanes", multiple=True, help="Look in this lane; in all by default.")
@click.option("--decoder", metavar="MODULE:FUNCTION", help="Decodes the payload: a function of bytes to text, or to what JSON can hold.")
@cloud.as_json_option
@cloud.with_settings
def show(task_id: str, lanes: tuple[str, ...], decoder: str | None, as_json: bool, settings: ControllerSettings) -> None:
    """Show all that the log knows of a task.

    Each death of TASK_ID with its errors and tracebacks, the message, and what was done.

    A payload that is gzip or JSON is decoded; `--decoder` names a function for others, in a module of this folder or installed.

    JSON: letters (as `export`, with state and payload), acts.
    """
    decode = _decoder(decoder) if decoder else decoded
    with opened(settings, lanes, Filter()) as scope:
        letters: list[tuple[Letter, str, Any]] = []
        acts: list[Entry] = []
        for lane in scope.lanes:
            infos = list(segments.listed(scope.store, lane.name))
            lines = [line.what for line in lines_about(scope.store, infos, task_id)]
            own = [one for one in lines if isinstance(one, Entry)]
            fold = Fold()
            for entry in own:
                fold.add(entry)
            acts += own
            for letter in {one.key: one for one in reversed(lines) if isinstance(one, Letter)}.values():
                end = fold.ended.get(letter.key)
                state = f"{end.act.value} by {end.action_id}" if end else "waits"
                now = edited(letter, fold)
                letters.append((letter, state, decode(_data(scope, now))))
    if not letters:
        raise click.ClickException(f"no log of dead letters has task {task_id}: `fanout task {task_id}` says what became of it")
    letters.sort(key=lambda one: one[0].replay_number)
    if as_json:
        show_json({"letters": [_letter_json(*one) for one in letters], "acts": [json.loads(entry_line(one)) for one in acts]})
        return
    for one in letters:
        click.echo("\n".join(_letter_text(*one)))
    for act in acts:
        why = f": {act.why}" if act.why else ""
        say(f"{act.at} {act.act.value} by {act.who or NONE}, {act.action_id}{why}")


def _data(scope: Scope, letter: Letter) -> bytes:
    try:
        return scope.store.read(letter.raw_object) if letter.raw_object else letter.data
    except ObjectMissing:
        return b""


def decoded(data: bytes) -> Any:
    """JSON as its value, other text as it is; gzip is unzipped first. Raises nothing: what cannot be decoded is shown escaped."""
    if data.startswith(_GZIP):
        with suppress(zlib.error):  # it may only begin like gzip
            data = zlib.decompressobj(wbits=31).decompress(data, MAX_UNZIPPED)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "backslashreplace")


def _decoder(named: str) -> Decoder:
    module, _, name = named.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.UsageError(f"--decoder {named!r}: {error}; give module:function") from error
    return lambda data: decoded(made) if isinstance(made := found(data), bytes) else made


def _letter_json(letter: Letter, state: str, payload: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(to_line(letter))
    return {**body, "state": state, "payload": payload if isinstance(payload, dict | list | str | int | float | None) else str(payload)}


def _letter_text(letter: Letter, state: str, payload: Any) -> list[str]:
    """Every line printable; tracebacks keep theirs."""
    replay = f", as replay {letter.replay_number}" if letter.replay_number else ""
    by = f" by worker {letter.execution}/{letter.index}" if letter.execution else ""
    lines = [
        f"task {letter.task_id} ({letter.task_type or NONE}) of lane {letter.lane}{replay}: {state}",
        f"  died {letter.died_at}{by} after {counted(letter.attempt_count, 'attempt')}; first published {letter.first_at}",
        f"  fingerprint {letter.fingerprint}, outcome shard {letter.shard}",
    ]
    lines += [f"  submission {letter.submission_id}"] if letter.submission_id else []
    lines += [f"  kept for a person: {letter.kept_because}"] if letter.kept_because else []
    for number, error in enumerate(letter.errors, 1):
        lines.append(f"  error {number}, {error.at}, worker {error.execution}/{error.index}:")
        lines += [f"    {line}" for line in (error.traceback or f"{error.error_type}: {error.reason}").splitlines()]
    if not any(one.reason == letter.reason for one in letter.errors):
        lines.append(f"  {letter.error_type}: {letter.reason}" if letter.reason else f"  {letter.error_type}")
    lines += [f"  attribute {name}={value}" for name, value in sorted(letter.attributes.items())]
    lines += [f"  source {name}={value}" for name, value in sorted(letter.source.items())]
    text = payload if isinstance(payload, str) else json.dumps(payload, indent=2, ensure_ascii=False, default=str)
    lines += ["  payload:", *(f"    {line}" for line in text.splitlines())]
    return [printable(line) for line in lines]


@click.command()
@click.argument("replay_id", required=False)
@click.option("--lane", "lanes", multiple=True, help="Of this lane; of all by default.")
@cloud.as_json_option
@cloud.with_settings
def replays(replay_id: str | None, lanes: tuple[str, ...], as_json: bool, settings: ControllerSettings) -> None:
    """Show what became of replays.

    All replays and discards, or with an id what became of each task of one: succeeded, dead again, pending, cancelled …

    \b
    fanout dead replays
    fanout dead replays r-20260131-120000-52e6b438

    JSON: replays (action_id, lane, act, at, who, why, details, closed); with an id: fates (task ids, by what became of them).
    """
    with opened(settings, lanes, Filter()) as scope:
        found: list[tuple[str, Entry, Entry | None]] = []
        for lane in scope.lanes:
            fold = segments.folded(scope.store, segments.listed(scope.store, lane.name))
            if replay_id in fold.replays and replay_id is not None:
                _show_fates(fold.replays[replay_id], fates(scope.store, lane.name, replay_id, fold), fold.closed.get(replay_id), as_json)
                return
            found += [(lane.name, one, fold.closed.get(name)) for name, one in fold.replays.items()]
    if replay_id is not None:
        raise click.ClickException(f"no lane's log has a replay {replay_id!r}: `fanout dead replays` lists them")
    found.sort(key=lambda one: one[1].at)
    if as_json:
        show_json({"replays": [_replay_json(*one) for one in found]})
    elif not found:
        say("nothing was replayed or discarded yet")
    else:
        columns, now = ("id", "lane", "state", "letters", "when"), SystemClock().now()
        below = tuple((f"by {one.who or NONE}{f': {one.why}' if one.why else ''}",) for _, one, _ in found)
        show_listing(Listing(columns, tuple(_replay_row(*one, now) for one in found), frozenset({"letters"}), below))


def _replay_json(lane: str, opened_: Entry, closed: Entry | None) -> dict[str, Any]:
    return {
        "action_id": opened_.action_id,
        "lane": lane,
        "act": opened_.details.get("act"),
        "at": opened_.at,
        "who": opened_.who,
        "why": opened_.why,
        "details": dict(opened_.details),
        "closed": dict(closed.details) if closed else None,
    }


def _replay_row(lane: str, opened_: Entry, closed: Entry | None, now: float) -> tuple[str, ...]:
    details = closed.details if closed else opened_.details
    letters = details.get("done_count", details.get("claimed_count", 0))
    state = f"{opened_.details.get('act')}, ended" if closed else f"{opened_.details.get('act')}, open"
    return (opened_.action_id, lane, state, f"{letters:,}", _ago(opened_.at, now))


def _ago(at: str, now: float) -> str:
    """Whatever stands in the log."""
    with suppress(ValueError):
        return f"{rough(now - from_iso(at))} ago"
    return at


def _show_fates(opened_: Entry, found: dict[str, list[str]], closed: Entry | None, as_json: bool) -> None:
    if as_json:
        show_json({"action_id": opened_.action_id, "closed": closed is not None, "fates": found})
        return
    now = SystemClock().now()
    say(f"{opened_.action_id} by {opened_.who or NONE}, {_ago(opened_.at, now)}{f', ended {_ago(closed.at, now)}' if closed else ''}")
    if closed is None:
        say(f"open: fanout dead replay --resume {opened_.action_id}")
    for fate, task_ids in sorted(found.items(), key=lambda one: -len(one[1])):
        say(f"{len(task_ids):>9,} {fate}: {task_ids[0]}", *(f"{'':>10}{task_id}" for task_id in task_ids[1:SHOWN]))
        if len(task_ids) > SHOWN:
            say(f"{'':>10}and {len(task_ids) - SHOWN:,} more; see --json")
    if not found:
        say("it had no letters")
