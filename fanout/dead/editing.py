"""`fanout dead edit`: the payload of one letter in an editor, or one patch over all that match. Nothing is written unless all is valid."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import click

from batch.client.submit import Check, NewTask
from batch.dead import claims, segments
from batch.dead.letters import Letter
from batch.dead.log import MAX_LINES, MAX_SEGMENT_BYTES, Act, Entry, Fold, about
from batch.dead.selecting import Found, waiting
from batch.model.clock import SystemClock, iso, minute
from batch.model.errors import MessageRefused
from batch.model.message import ENVELOPE, MAX_MESSAGE_BYTES
from batch.model.names import dead_segment_object
from fanout.dead.patches import differences, patch_of
from fanout.dead.scope import Scope, who, with_scope
from fanout.output import EXIT_TROUBLE, CommandFailed, counted, say
from fanout.submission.submit import check_with

SHOWN = 5
Change = Callable[[bytes], bytes]
"""Of a letter's data. Raises ValueError, MessageRefused."""


@click.command()
@click.argument("task_id", required=False)
@click.option("--patch", help='A JSON merge patch such as \'{"width": 10}\', or a JSON patch: [{"op": …}]. Without it: in $EDITOR.')
@click.option("--handlers", envvar="HANDLERS", default="batch.handlers", show_default=True, show_envvar=True, help="Modules to check with.")
@click.option("--any-type", is_flag=True, help="Accept task types that these handlers do not know.")
@click.option("--dry-run", is_flag=True, help="Only show what would differ.")
@click.option("--why", default="", help="The reason, for the log.")
@click.option("--yes", is_flag=True, help="Do not ask, also where no filter is given.")
@with_scope
def edit(task_id: str | None, patch: str | None, handlers: str, any_type: bool, dry_run: bool, why: str, yes: bool, scope: Scope) -> None:
    """Mend a payload, or all that match.

    TASK_ID is edited in $EDITOR; --patch changes all letters that match. What waits goes on waiting, until it is replayed.

    What the handler's payload model refuses is not written, nor is any other letter's change then. The envelope stays, but for task_type.

    \b
    fanout dead edit 1f0c52e6b438aa71-s-20260131-120000-52e6b438
    fanout dead edit --fingerprint 0123456789abcdef --patch '{"filename": "a.csv"}'
    """
    if task_id is not None:
        scope = replace(scope, wanted=replace(scope.wanted, task_ids=scope.wanted.task_ids | {task_id}))
    elif patch is None:
        raise click.UsageError("name one TASK_ID to edit it in $EDITOR, or give --patch and a filter")
    check = check_with(handlers, any_type)
    if patch is None:
        _write(scope, _in_editor, check, why, dry_run=dry_run)
        return
    try:
        patched = patch_of(patch)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if scope.wanted.is_empty and not (yes or dry_run):
        click.confirm(f"patch all dead letters of {' and '.join(lane.name for lane in scope.lanes)}?", abort=True)
    _write(scope, lambda data: _dumped(patched(_object(data))), check, why, dry_run=dry_run)


def _in_editor(data: bytes) -> bytes:
    try:
        text = json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    except ValueError:
        text = data.decode("utf-8")
    given = click.edit(text + "\n", extension=".json", require_save=False)
    return _dumped(_object((given or "").encode()))


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise ValueError(f"the payload is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ValueError("the payload is no JSON object")
    return body


def _dumped(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _check_form(letter: Letter) -> None:
    """Raises ValueError for a message whose bytes are its publisher's, and not fields of a task."""
    if letter.form:
        what = f"its message came as {letter.form}, from a publisher that does not know Fanout: it can be replayed as it is, or discarded"
        raise ValueError(f"{what}; a right one is published to the topic of lane {letter.lane}")


def _checked(letter: Letter, data: bytes, check: Check) -> list[str]:
    """What differs. Raises ValueError, MessageRefused for data that must not be written."""
    after = _object(data)
    try:
        before = _object(letter.data)
    except ValueError:
        before = {}
    for name in ("task_id", "submitted_at"):
        if before and before.get(name) != after.get(name):
            raise ValueError(f"{name} must stay {before.get(name)!r}: it says which task this is, and how old")
    if not before and after.get("task_id", letter.task_id) != letter.task_id:
        raise ValueError(f"task_id must be {letter.task_id!r}, or left out: the outcomes are this task's")
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(f"the payload would have {len(data):,} bytes, at most {MAX_MESSAGE_BYTES:,} can travel")
    fields = {name: value for name, value in after.items() if name not in ENVELOPE}
    check(NewTask(str(after.get("task_type", "")), fields))
    return list(differences(before, after))


def _changed(scope: Scope, change: Change, check: Check) -> Iterator[tuple[str, Letter, bytes, list[str], str]]:
    """Lane, letter, its new data, what differs, and why it cannot be; letters that stay as they are, are left out."""
    for lane in scope.lanes:
        infos = list(segments.listed(scope.store, lane.name))
        fold = segments.folded(scope.store, infos)
        for found in waiting(scope.store, infos, fold, scope.wanted.matches, scope.wanted):
            held: dict[int, str] | None = None
            for line, letter in found.letters.items():
                if letter.raw_object:
                    letter = replace(letter, data=scope.store.read(letter.raw_object))
                try:
                    _check_form(letter)
                    data = change(letter.data)
                    held = _held(scope, found, fold) if held is None else held  # asked last: a person may have edited for long
                    if line in held:
                        raise ValueError(f"{held[line]} has claimed it: wait for its end, or resume it")
                    differs = _checked(letter, data, check)
                except (ValueError, MessageRefused) as error:
                    yield lane.name, letter, b"", [], str(error)
                else:
                    if differs:
                        yield lane.name, letter, data, differs, ""


def _held(scope: Scope, found: Found, fold: Fold) -> dict[int, str]:
    known = claims.read(scope.store, found.segment).items()
    return {line: action for action, one in known if action not in fold.closed for line in one.lines}


def _write(scope: Scope, change: Change, check: Check, why: str, *, dry_run: bool) -> None:
    """First all is checked, and the first differences shown; then it is written."""
    changes: list[tuple[str, Letter, bytes]] = []
    refused: list[str] = []
    refused_count = 0
    for lane, letter, data, differs, problem in _changed(scope, change, check):
        if problem:
            refused_count += 1
            refused += [f"{letter.task_id}: {problem}"] if len(refused) < SHOWN else []
            continue
        if len(changes) < SHOWN:
            say(f"{letter.task_id} ({letter.task_type}):", *(f"  {one}" for one in differs))
        changes.append((lane, replace(letter, data=b"", attributes={}, errors=(), source={}), data))
    if refused_count:
        more = [f"and {refused_count - SHOWN:,} more"] if refused_count > SHOWN else []
        nothing = f"nothing was written: {counted(refused_count, 'letter')} cannot be changed so"
        raise CommandFailed(EXIT_TROUBLE, "\n".join([nothing, *refused, *more]))
    if not changes:
        raise CommandFailed(EXIT_TROUBLE, "nothing was written: no dead letter that waits matches, or the change leaves all as they are")
    if len(changes) > SHOWN:
        say(f"and {counted(len(changes) - SHOWN, 'letter')} more")
    if dry_run:
        say(f"would edit {counted(len(changes), 'dead letter')}")
        return
    folds = {name: segments.folded(scope.store, segments.listed(scope.store, name)) for name in {lane for lane, _, _ in changes}}
    for lane, letter, _ in changes:
        if not folds[lane].waits(letter.key):
            what = f"nothing was written: {letter.task_id} was replayed or discarded meanwhile"
            raise CommandFailed(EXIT_TROUBLE, f"{what}; see fanout dead show {letter.task_id}")
    _append(scope, changes, why)
    say(f"edited {counted(len(changes), 'dead letter')}; to publish: fanout dead replay{_again(scope)}")


def _again(scope: Scope) -> str:
    return "".join(f" --id {task_id}" for task_id in sorted(scope.wanted.task_ids)) or " with the same filter"


def _append(scope: Scope, changes: list[tuple[str, Letter, bytes]], why: str) -> None:
    clock, user = SystemClock(), who()
    now = clock.now()
    action_id = f"e-{minute(now)}-{random.SystemRandom().getrandbits(32):08x}"
    for lane in dict.fromkeys(lane for lane, _, _ in changes):
        number, size, entries = count(), 0, list[Entry]()
        for letter, data in ((letter, data) for name, letter, data in changes if name == lane):
            if entries and (len(entries) == MAX_LINES or size + len(data) > MAX_SEGMENT_BYTES):
                segments.write(scope.store, dead_segment_object(lane, now, action_id, next(number)), entries)
                entries, size = [], 0
            entries.append(about(letter, Act.EDITED, at=iso(now), action_id=action_id, who=user, why=why, data=data))
            size += len(data)
        segments.write(scope.store, dead_segment_object(lane, now, action_id, next(number)), entries)
