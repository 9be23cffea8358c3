"""What waits in the log, by filter and by group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batch.dead import segments
from batch.dead.filters import Filter, from_json, to_json
from batch.dead.letters import Letter
from batch.dead.log import Act, about
from batch.dead.purging import purge, purge_of
from batch.dead.selecting import grouped, waiting
from batch.model.clock import iso
from batch.model.names import dead_segment_object
from batch.testing import ManualClock, MemoryObjectStore
from batch.testing.clock import START_S
from tests.batch.dead.log_of_letters import here, letter, write_log

ONE = letter(1)


@pytest.mark.parametrize(
    ("conditions", "other"),
    [
        ({"task_types": ("resize",)}, {"task_type": "crop"}),
        ({"fingerprints": (ONE.fingerprint,)}, {"fingerprint": "0" * 16}),
        ({"error_types": ("KeyError", "OSError")}, {"error_type": "ValueError"}),
        ({"submissions": ("s-1",)}, {"submission_id": ""}),
        ({"task_ids": frozenset({ONE.task_id})}, {"task_id": "another"}),
        ({"died_after": iso(START_S - 61)}, {"died_at": iso(START_S - 61)}),
        ({"died_before": iso(START_S - 59)}, {"died_at": iso(START_S - 59)}),
        ({"text": "No Line"}, {"reason": "else"}),
        ({"text": '"WIDTH":1'}, {"data": b"\xff"}),
    ],
)
def test_each_condition_must_hold(conditions: dict[str, Any], other: dict[str, Any]) -> None:
    wanted = Filter(**conditions)
    assert wanted.matches(ONE)
    assert not wanted.matches(replace(ONE, **other))
    assert not replace(wanted, task_types=("none",)).matches(ONE)
    assert from_json(to_json(wanted)) == wanted
    assert not wanted.is_empty


def test_a_condition_that_is_not_known_is_no_empty_filter() -> None:
    assert Filter().is_empty
    with pytest.raises(ValueError, match="no colour"):
        from_json({"colour": ["red"]})


class Reads(MemoryObjectStore):
    """Knows what was read."""

    def __init__(self) -> None:
        super().__init__(clock=ManualClock())
        self.names_read: list[str] = []

    def read(self, name: str) -> bytes:
        self.names_read.append(name)
        return super().read(name)


def test_groups_come_from_metadata_with_one_example_each() -> None:
    store = Reads()
    letters = [letter(number, "KeyError" if number % 3 else "ValueError") for number in range(30)]
    write_log(store, letters, a_segment=6)
    ended = [about(one, Act.DISCARDED, at=iso(START_S), action_id="d-1", who="ann") for one in letters[:4]]
    segments.write(store, dead_segment_object("default", START_S, "d-1", 0), ended)
    first, second = grouped(store, "default", Filter())
    assert (first.title, first.waiting_count, second.title, second.waiting_count) == ("KeyError: no line #", 18, "ValueError: no line #", 8)
    assert dict(first.hours) == {"2025123123": 20}
    assert [one.example and one.example.task_id for one in (first, second)] == [letters[4].task_id, letters[6].task_id]
    assert len(store.names_read) <= 3, "a segment for each example, and the acts"
    (by_type,) = grouped(store, "default", Filter(error_types=("ValueError",)))
    assert (by_type.waiting_count, by_type.example) == (8, letters[6])
    (by_print,) = grouped(store, "default", Filter(fingerprints=(letters[0].fingerprint,)))
    assert by_print.waiting_count == 8


def test_segments_with_more_groups_than_their_metadata_holds_are_read() -> None:
    store, _, _ = here(ManualClock())
    letters = [letter(number, f"Error{chr(65 + number // 26)}{chr(97 + number % 26)}") for number in range(150)]
    write_log(store, letters, a_segment=150)
    assert len(grouped(store, "default", Filter())) == 150


def test_only_segments_that_can_hold_a_match_are_read() -> None:
    store = Reads()
    write_log(store, [letter(number, "KeyError") for number in range(4)], writer="a")
    write_log(store, [letter(number, "ValueError") for number in range(4, 8)], writer="b")
    infos = list(segments.listed(store, "default"))
    wanted = Filter(fingerprints=(letter(0, "ValueError").fingerprint,))
    fold = segments.folded(store, infos)
    (found,) = waiting(store, infos, fold, wanted.matches, wanted)
    assert len(found.letters) == 4
    assert len(store.names_read) == 1
    late = Filter(died_after=iso(START_S + 3600))
    assert not list(waiting(store, infos, fold, late.matches, late))
    assert len(store.names_read) == 1


def test_an_edit_changes_what_matches() -> None:
    store, _, _ = here(ManualClock())
    write_log(store, [ONE])
    edit = about(ONE, Act.EDITED, at=iso(START_S), action_id="e", who="ann", data=b'{"task_type":"crop"}')
    segments.write(store, dead_segment_object("default", START_S, "e", 0), [edit])
    infos = list(segments.listed(store, "default"))
    (found,) = waiting(store, infos, segments.folded(store, infos), Filter(task_types=("crop",)).matches)
    (changed,) = found.letters.values()
    assert isinstance(changed, Letter)
    assert changed.attributes["task_type"] == "crop"


def test_after_a_purge_acts_that_stay_hide_no_letter_that_waits() -> None:
    """Lists are made from counts: what was done to letters that are gone must not be taken from those that came later."""
    store, _, rng = here(ManualClock())
    old, new = [letter(number) for number in range(4)], [letter(number) for number in range(4, 7)]
    write_log(store, old)
    act = [about(one, Act.DISCARDED, at=iso(START_S), action_id="d-1", who="ann") for one in old]
    segments.write(store, dead_segment_object("default", START_S + 3600, "d-1", 0), act)
    write_log(store, new, writer="dead-letters-y-0-0")
    for before_s, gone in ((START_S + 1800, 0), (START_S + 7200, 4)):
        found = purge_of(store, "default", before_s)
        assert found.letter_count == gone
        purge(store, "default", found, clock=ManualClock(), rng=rng, who="ann", why="")
        (group,) = grouped(store, "default", Filter())
        assert group.waiting_count == 3


def test_segments_that_a_purge_takes_meanwhile_are_left_out() -> None:
    store = MemoryObjectStore()
    write_log(store, [letter(number) for number in range(12)])
    infos = list(segments.listed(store, "default"))
    store.delete(infos[1].name)
    read = [line.what.task_id for line in segments.lines(store, infos) if isinstance(line.what, Letter)]
    assert read == [letter(number).task_id for number in range(12) if number // 4 != 1]


@pytest.mark.parametrize("chosen", ["s-1", "s-2"])
def test_a_task_that_died_for_two_submissions_is_found_for_either(chosen: str) -> None:
    store = MemoryObjectStore()
    write_log(store, [letter(1), letter(1, submission_id="s-2"), letter(1, submission_id="s-2")], a_segment=1)
    infos = list(segments.listed(store, "default"))
    wanted = Filter(submissions=(chosen,))
    found = [one for each in waiting(store, infos, segments.folded(store, infos), wanted.matches, wanted) for one in each.letters.values()]
    assert [one.submission_id for one in found] == [chosen]
