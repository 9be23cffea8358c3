"""`fanout dead` and `fanout retry`: a workbench for tasks that died, and what each command leaves in their log."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from batch.client.proof import prove
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.dead import segments
from batch.dead.lanes import write_lanes
from batch.dead.letters import Letter, from_body
from batch.dead.log import Act
from batch.model.attempts import AttemptError
from batch.model.clock import SystemClock, iso
from batch.model.errors import DependencyUnavailable
from batch.model.names import dead_claims_object, outcome_object
from batch.model.outcomes import Outcome, to_line
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from batch.testing.clock import START_S
from controller.config import ControllerSettings
from controller.observe.sources import SubscriptionFacts
from fanout import cloud, doctor
from fanout.commands import main
from fanout.dead import command, scope
from fanout.dead.listing import bars
from fanout.doctor.services import Facts
from tests.batch.dead.log_of_letters import BULK, LANE, SHARD, acts, here, keys, letter, published, write_log
from tests.fanout.doctor_fakes import GOOD, FakeFacts

Run = Callable[..., Result]
HANDLERS = "tests.fanout.handlers_of_dead"


@dataclass
class Desk:
    """What the commands touch, in memory."""

    store: MemoryObjectStore
    broker: MemoryBroker
    facts: FakeFacts
    run: Run

    def dead(self, *arguments: str, code: int = 0, answer: str = "") -> str:
        result = self.run(command, *arguments, answer=answer)
        assert result.exit_code == code, result.output
        return result.output

    def acts(self) -> Counter[str]:
        return Counter(one.act.value for one in acts(self.store) if one.act is not Act.OPENED)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, run: Run) -> Desk:
    """The lanes `default` and `bulk`, without letters."""
    store, broker, _ = here(ManualClock())
    write_lanes(store, {"default": LANE, "bulk": BULK})
    topics = {"tasks": ["projects/p/subscriptions/tasks-sub"], "bulk": ["projects/p/subscriptions/bulk-sub"]}
    found = Desk(store, broker, FakeFacts(topics=topics), run)

    @contextmanager
    def open_store(project: str, bucket: str) -> Iterator[MemoryObjectStore]:
        yield store

    @contextmanager
    def open_topic(project: str, name: str) -> Iterator[Any]:
        yield broker.topic(name)

    @contextmanager
    def open_facts(settings: ControllerSettings) -> Iterator[Facts]:
        yield found.facts

    monkeypatch.setattr(cloud, "open_store", open_store)
    monkeypatch.setattr(cloud, "open_topic", open_topic)
    monkeypatch.setattr(doctor, "open_facts", open_facts)
    monkeypatch.setenv("CLOUDSDK_CORE_ACCOUNT", "ann@example.com")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    return found


def mixed(count: int = 10) -> list[Letter]:
    return [letter(number, "KeyError" if number % 2 else "ValueError") for number in range(count)]


def test_ls_shows_what_killed_how_many_and_one_example(desk: Desk) -> None:
    assert desk.dead("ls") == "no dead letter waits\n"
    letters = mixed(11)
    write_log(desk.store, letters)
    write_log(desk.store, [letter(50, "OSError", lane="bulk")])
    head, *groups, total, last = desk.dead("ls").splitlines()
    rows, errors, examples = groups[::3], groups[1::3], groups[2::3]
    assert head.split() == ["COUNT", "LANE", "LAST", "24", "H", "FINGERPRINT"]
    assert [row.split()[:2] for row in rows] == [["6", "default"], ["5", "default"], ["1", "bulk"]]
    assert [line.split(":")[:2] for line in errors] == [["  resize", f" {one}Error"] for one in ("Value", "Key", "OS")]
    assert examples[0] == f"  such as {letters[0].task_id}"
    assert rows[0].endswith(f"  {letters[0].fingerprint}")
    assert (total, last) == ("12 dead letters in 3 groups", f"one in full: fanout dead show {letters[0].task_id}")
    assert desk.dead("ls", "--lane", "bulk").splitlines()[-2] == "1 dead letter in 1 group"
    found = json.loads(desk.dead("ls", "--error", "KeyError", "--json"))["groups"]
    assert [(one["waiting_count"], one["error_type"], one["task_type"], one["example"]) for one in found] == [
        (5, "KeyError", "resize", letters[1].task_id)
    ]


def test_a_bar_stands_for_each_hour() -> None:
    shown = bars(Counter({"2026010100": 8, "2025123123": 1, "2025123022": 5}), START_S + 60)
    assert (len(shown), shown[-2:], set(shown[:-2])) == (24, "▁█", {"·"})


def test_lanes_that_are_not_known_are_named(desk: Desk) -> None:
    assert "there is no lane 'bulky'; known are bulk, default" in desk.dead("ls", "--lane", "bulky", code=2)
    desk.store.delete("controller/lanes.json")
    assert "run `fanout tick`" in desk.dead("ls", code=2)


def test_show_tells_all_of_one(desk: Desk) -> None:
    error = AttemptError(iso(START_S), "KeyError", "no line 1", "default-x", 3, 'Traceback (most recent call last):\n  File "a.py"\x1b[31m')
    one = letter(1, errors=(error,), data=gzip.compress(b'{"width": "wide"}'), source={"CloudPubSubDeadLetterSourceDeliveryCount": "100"})
    write_log(desk.store, [one, letter(2)])
    text = desk.dead("show", one.task_id)
    for part in ('    Traceback (most recent call last):\n      File "a.py"\\x1b[31m', '"width": "wide"', "waits"):
        assert part in text
    assert "attribute lane=default" in text
    assert "source CloudPubSubDeadLetterSourceDeliveryCount=100" in text
    assert letter(2).task_id not in text
    desk.dead("discard", "--id", one.task_id, "--why", "old news")
    assert "discarded by ann@example.com" in desk.dead("show", one.task_id)
    assert "old news" in desk.dead("show", one.task_id)
    body = json.loads(desk.dead("show", one.task_id, "--json"))
    assert body["letters"][0]["payload"] == {"width": "wide"}
    assert [act["event"] for act in body["acts"]] == ["discarded"]
    shown = desk.dead("show", letter(2).task_id, "--decoder", f"{HANDLERS}:shouted")
    assert '{"WIDTH":2' in shown
    assert "--decoder 'nothing:here'" in desk.dead("show", letter(2).task_id, "--decoder", "nothing:here", code=2)
    assert "fanout task none" in desk.dead("show", "none", code=1)


def test_a_filter_asks_nothing_and_all_letters_ask(desk: Desk) -> None:
    letters = mixed()
    write_log(desk.store, letters)
    for verb in ("replay", "discard"):
        shown = desk.dead(verb, code=1, answer="n\n")
        assert f"{verb} all 10 dead letters of" in shown
        assert "5 × KeyError: no line #" in shown
        assert "would" in desk.dead(verb, "--dry-run", "--error", "KeyError")
        assert f"{verb} all" in desk.dead(verb, "--lane", "default", code=1, answer="n\n")
    assert "patch all" in desk.dead("edit", "--patch", '{"width": 1}', "--any-type", code=1, answer="n\n")
    assert not desk.acts()
    assert not desk.broker.topic("tasks").published
    told = desk.dead("replay", "--error", "KeyError", "--why", "fixed")
    assert "lane default: 5 dead letters replayed, as r-" in told
    assert desk.acts() == {"replayed": 5, "closed": 1}
    assert "lane default: 5 dead letters replayed" in desk.dead("replay", answer="y\n")
    assert sorted(published(desk.broker)) == keys(letters)
    assert {(one.who, one.why) for one in acts(desk.store)} == {("ann@example.com", "fixed"), ("ann@example.com", "")}
    assert "no dead letter that waits matches" in desk.dead("replay", "--yes")


def test_what_was_replayed_is_followed_up(desk: Desk) -> None:
    letters = [letter(number) for number in range(8)]
    write_log(desk.store, letters)
    late = Outcome(letters[7].task_id, "resize", "cancelled", iso(START_S))
    desk.store.write(outcome_object(SHARD, START_S, "default-x-0-0", 0), to_line(late))
    told = desk.dead("replay", "--type", "resize")
    assert "1 task skipped: cancelled, and a cancelled task cannot be retried: submit it anew" in told
    ended = ["succeeded", "succeeded", "dead", "cancelled"]
    lines = [Outcome(one.task_id, "resize", how, iso(START_S), replay_number=1) for one, how in zip(letters, ended, strict=False)]
    desk.store.write(outcome_object(SHARD, START_S, "default-x-0-0", 1), b"".join(map(to_line, lines)))
    (listed,) = json.loads(desk.dead("replays", "--json"))["replays"]
    assert listed["closed"]["done_count"] == 7
    assert f"what becomes of them: fanout dead replays {listed['action_id']}" in told
    shown = desk.dead("replays", listed["action_id"])
    assert f"2 succeeded: {letters[0].task_id}\n          {letters[1].task_id}\n" in shown
    assert f"1 dead again: {letters[2].task_id}" in shown
    assert "3 pending" in shown
    assert "1 cancelled" in shown
    assert "1 not needed" in shown
    head, row, by = desk.dead("replays").splitlines()
    assert head.split() == ["ID", "LANE", "STATE", "LETTERS", "WHEN"]
    assert row.split()[:5] == [listed["action_id"], "default", "replayed,", "ended", "7"]
    assert (row.endswith(" s ago"), by) == (True, "  by ann@example.com")
    assert "lists them" in desk.dead("replays", "r-none", code=1)


def test_a_wrong_payload_is_mended_in_three_commands(desk: Desk) -> None:
    """Edit, replay, see that it succeeded."""
    write_log(desk.store, [letter(1), letter(2)])
    one = letter(1).task_id
    shown = desk.dead("edit", one, "--patch", '{"width": 640, "height": 480}', "--handlers", HANDLERS, "--why", "width was wrong")
    assert "width: 1 -> 640" in shown
    assert "height: added 480" in shown
    assert "edited 1 dead letter" in shown
    desk.dead("replay", "--id", one)
    ((_, message),) = desk.broker.topic("tasks").published
    assert json.loads(message.data) == {**json.loads(letter(1).data), "width": 640, "height": 480}
    done = to_line(Outcome(one, "resize", "succeeded", iso(START_S), replay_number=1))
    desk.store.write(outcome_object(SHARD, START_S, "default-x-0-0", 0), done)
    (replay,) = json.loads(desk.dead("replays", "--json"))["replays"]
    assert f"1 succeeded: {one}" in desk.dead("replays", replay["action_id"])
    assert desk.acts() == {"edited": 1, "replayed": 1, "closed": 1}


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ('{"width": "wide"}', "width:"),
        ('{"colour": "red"}', "colour:"),
        ('{"task_id": "another"}', "task_id must stay"),
        ('{"submitted_at": null}', "submitted_at must stay"),
        ('{"task_type": "resise"}', "did you mean 'resize'?"),
        ('[{"op": "remove", "path": "/depth"}]', "can't remove a non-existent object 'depth'"),
        ('[{"op": "test", "path": "/width", "value": 99}]', "is not equal to tested value 99"),
        ('[{"op": "add", "path": "/a"}]', "does not contain a 'value' member"),
    ],
)
def test_a_wrong_patch_is_refused_with_the_reason_and_changes_nothing(desk: Desk, patch: str, reason: str) -> None:
    write_log(desk.store, [letter(number) for number in range(1, 9)])
    shown = desk.dead("edit", "--type", "resize", "--patch", patch, "--handlers", HANDLERS, code=1)
    assert reason in shown
    assert "nothing was written: 8 letters cannot be changed so" in shown
    assert "and 3 more" in shown
    assert not desk.acts()


@pytest.mark.parametrize("arguments", [("--patch", '{"width": 1}', "--yes"), (letter(1).task_id,)])
def test_what_a_publisher_wrote_that_knows_no_fields_is_not_edited(
    desk: Desk, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click, "edit", lambda *_, **__: pytest.fail("there is nothing to edit"))
    write_log(desk.store, [letter(1, data=b'{"width": 2}', form="raw")])
    shown = desk.dead("edit", *arguments, "--handlers", HANDLERS, code=1)
    assert "its message came as raw, from a publisher that does not know Fanout: it can be replayed as it is, or discarded" in shown
    assert not desk.acts()
    desk.dead("replay", "--id", letter(1).task_id)
    ((_, message),) = desk.broker.topic("tasks").published
    assert message.data == b'{"width": 2}'


@pytest.mark.parametrize("patch", ["no json", "3", "[]", '[{"op": "swap", "path": "/a"}]'])
def test_what_is_no_patch_is_wrong_usage(desk: Desk, patch: str) -> None:
    assert "Error" in desk.dead("edit", "x", "--patch", patch, "--handlers", HANDLERS, code=2)


def test_a_patch_over_a_filter_shows_the_first_five(desk: Desk) -> None:
    letters = [letter(number) for number in range(1, 9)]
    write_log(desk.store, letters)
    arguments = ("edit", "--type", "resize", "--patch", '[{"op": "replace", "path": "/width", "value": 2}]', "--handlers", HANDLERS)
    shown = desk.dead(*arguments, "--dry-run")
    assert shown.count("-> 2") == 5
    assert "and 2 letters more" in shown
    assert "would edit 7 dead letters" in shown
    assert not desk.acts()
    assert "edited 7 dead letters" in desk.dead(*arguments)
    assert desk.acts() == {"edited": 7}
    assert "leaves all as they are" in desk.dead(*arguments, code=1)


def test_one_is_edited_in_an_editor(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = letter(1, data=b'{"task_type": "resize", "width": 1')
    write_log(desk.store, [broken])
    monkeypatch.setattr(click, "edit", lambda text, **_: text.replace('"width": 1', '"width": 5}'))
    desk.dead("edit", broken.task_id, "--handlers", HANDLERS)
    desk.dead("replay", "--id", broken.task_id)
    ((_, message),) = desk.broker.topic("tasks").published
    assert json.loads(message.data) == {"task_type": "resize", "width": 5}
    assert "name one TASK_ID" in desk.dead("edit", code=2)


def test_what_a_replay_has_claimed_is_not_edited(desk: Desk) -> None:
    write_log(desk.store, [letter(1)])
    desk.broker.topic("tasks").fail_next("publish", DependencyUnavailable("Pub/Sub is down"))
    shown = desk.dead("replay", "--type", "resize", code=1)
    assert "Pub/Sub is down" in shown
    assert "--resume REPLAY" in shown
    (replay,) = json.loads(desk.dead("replays", "--json"))["replays"]
    edit = desk.dead("edit", letter(1).task_id, "--patch", '{"width": 5}', "--handlers", HANDLERS, code=1)
    assert f"{replay['action_id']} has claimed it" in edit
    told = desk.dead("replay", "--resume", replay["action_id"])
    assert "1 dead letter replayed" in told
    assert "at most 1 of them were published twice" in told
    assert "has ended" in desk.dead("replay", "--resume", replay["action_id"], code=1)
    assert "no lane's log has a replay 'r-x'" in desk.dead("replay", "--resume", "r-x", code=1)


def test_other_readers_of_the_topic_are_asked_about(desk: Desk) -> None:
    write_log(desk.store, [letter(1)])
    desk.facts.topics["tasks"].append("projects/p/subscriptions/audit")
    desk.facts.subscriptions["audit"] = GOOD
    refused = desk.dead("replay", "--type", "resize", code=2)
    assert "audit" in refused
    assert "NOT attributes:delayed" in refused
    assert "--all-subscriptions" in refused
    assert not desk.broker.topic("tasks").published
    desk.facts.subscriptions["audit"] = replace(GOOD, message_filter="NOT attributes:delayed")
    assert "1 dead letter replayed" in desk.dead("replay", "--type", "resize")
    write_log(desk.store, [letter(2)], writer="x")
    desk.facts.subscriptions["audit"] = GOOD
    assert "1 dead letter replayed" in desk.dead("replay", "--type", "resize", "--all-subscriptions")
    desk.facts.subscriptions["tasks-sub"] = SubscriptionFacts("tasks", 60, 7 * 86400.0, message_filter="NOT attributes:delayed")
    write_log(desk.store, [letter(3)], writer="y")
    assert "would never get them" in desk.dead("replay", "--type", "resize", "--all-subscriptions", code=2)


def test_to_another_lane(desk: Desk) -> None:
    write_log(desk.store, [letter(1)])
    assert "there is no lane 'x'" in desk.dead("replay", "--to-lane", "x", "--yes", code=2)
    desk.dead("replay", "--to-lane", "bulk", "--yes", "--lane", "default")
    assert published(desk.broker, "bulk") == Counter(keys([letter(1)]))


def test_export_is_the_letters_as_they_would_be_published(desk: Desk) -> None:
    write_log(desk.store, mixed())
    lines = desk.dead("export", "--error", "KeyError").splitlines()
    assert [from_body(json.loads(line)) for line in lines] == mixed()[1::2]


def test_purge_deletes_what_is_done_with_and_nothing_that_waits(desk: Desk) -> None:
    letters = [letter(number) for number in range(8)]
    raw = letter(9, data=b"", raw_object="dead/raw/nine")
    desk.store.write("dead/raw/nine", b"large")
    write_log(desk.store, [*letters[:3], raw, *letters[3:]])
    for one in (*letters[:3], raw, letters[4]):
        desk.dead("discard", "--id", one.task_id)
    names = [info.name for info in segments.listed(desk.store, "default") if segments.has_letters(info)]
    assert "would delete" in desk.dead("purge", "--before", "365d", "--yes")
    later = iso(SystemClock().now() + 3600)
    assert "would delete" in desk.dead("purge", "--before", later, "--dry-run")
    desk.dead("purge", "--before", later, code=1, answer="n\n")
    assert set(names) <= set(desk.store.names())
    told = desk.dead("purge", "--before", later, "--yes", "--why", "long ago")
    assert "lane default: deleted" in told
    assert "with 4 letters, as p-" in told
    left = set(desk.store.names())
    assert names[0] not in left
    assert set(names[1:]) <= left
    assert "dead/raw/nine" not in left
    assert dead_claims_object(names[0]) not in left
    assert desk.dead("ls").splitlines()[-2].startswith("4 dead letters in 1 group")
    assert desk.acts()["purged"] == 1
    assert desk.acts()["discarded"] == 1
    assert "would delete 0 segments" in desk.dead("purge", "--before", later, "--yes", "--lane", "bulk")


def test_the_dead_tasks_of_a_submission_are_retried(desk: Desk) -> None:
    clock = ManualClock()
    submission = Submission(lane="default", topic=desk.broker.topic("tasks"), store=desk.store, clock=clock, rng=random.Random(1))
    submission.add(NewTask("resize", {"width": number}) for number in range(4))
    submission.close()
    sent = [message for _, message in desk.broker.topic("tasks").published]
    shard = sent[0].attributes["shard"]
    ids = [one.attributes["task_id"] for one in sent]
    name = submission.submission_id
    ones = [
        letter(number, task_id=task_id, shard=shard, submission_id=name, data=one.data, attributes=one.attributes)
        for number, (task_id, one) in enumerate(zip(ids, sent, strict=True))
    ]
    segments.write(desk.store, "dead/default/202601010000-x-0.jsonl", ones[:2])
    hows = ["dead", "dead", "dead", "cancelled"]
    body = b"".join(to_line(Outcome(task_id, "resize", how, iso(START_S))) for task_id, how in zip(ids, hows, strict=True))
    desk.store.write(outcome_object(shard, START_S, "default-x-0-0", 0), body)
    assert desk.run(main, "retry", name).exit_code == 2
    result = desk.run(main, "retry", name, "--failed-only")
    assert result.exit_code == 0
    assert "lane default: 2 dead letters replayed" in result.output
    assert "1 cancelled task cannot be retried" in result.output
    assert "1 dead task not in the log yet" in result.output
    assert {one.why for one in acts(desk.store)} == {f"retry of {name}"}
    assert sorted(prove(desk.store, name).replayed) == sorted(ids[:2])
    assert "there is no submission s-0" in desk.run(main, "retry", "s-0", "--failed-only").output


def test_who_acts_is_gclouds_account_or_the_machines_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDSDK_CORE_ACCOUNT", raising=False)
    monkeypatch.delenv("CLOUDSDK_ACTIVE_CONFIG_NAME", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "ann")
    assert scope.who() == "ann"
    (tmp_path / "active_config").write_text("work\n")
    (tmp_path / "configurations").mkdir()
    (tmp_path / "configurations" / "config_work").write_text("[core]\naccount = ann@example.com\n")
    assert scope.who() == "ann@example.com"
    monkeypatch.setenv("CLOUDSDK_CORE_ACCOUNT", "bob@example.com")
    assert scope.who() == "bob@example.com"


def test_envelopes_are_not_replayed_to_a_lane_that_would_take_them_for_raw_bytes(desk: Desk) -> None:
    raw = replace(BULK, accept=("raw",), default_type="note")
    write_lanes(desk.store, {"default": LANE, "bulk": raw})
    unread = letter(2, "not_json", data=b"Message number 1", task_type="unknown", attributes={})
    write_log(desk.store, [letter(0), letter(1), unread])
    said = desk.dead("replay", "--to-lane", "bulk", "--yes")
    assert "lane default: 1 dead letter replayed" in said
    assert "lane default: 2 dead letters not replayed: lane bulk takes raw and no envelope, so its workers would not read" in said
    assert desk.dead("discard", "--limit", "1", "--yes").startswith("lane default: 1 dead letter discarded")
    said = desk.dead("replay", "--to-lane", "bulk", "--yes")
    assert "lane default: 1 dead letter not replayed" in said
    assert "no dead letter" not in said
    assert "1 dead letter replayed" in desk.dead("replay", "--yes")


def test_an_interrupted_replay_to_such_a_lane_goes_on_without_them(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lanes(desk.store, {"default": LANE, "bulk": replace(BULK, accept=("raw",), default_type="note")})
    unread = [letter(number, "not_json", data=b"%d" % number, task_type="unknown", attributes={}) for number in range(2, 9)]
    write_log(desk.store, [letter(0), *unread, letter(9)])
    topic = desk.broker.topic("bulk")

    def down(_messages: object) -> list[str]:
        raise DependencyUnavailable("down")

    with monkeypatch.context() as broken:
        broken.setattr(type(topic), "publish", lambda _self, messages: down(messages))
        desk.dead("replay", "--to-lane", "bulk", "--yes", code=1)
    (replay_id,) = segments.folded(desk.store, segments.listed(desk.store, "default")).replays
    assert "7 dead letters replayed" in desk.dead("replay", "--resume", replay_id)
    assert "2 dead letters" in desk.dead("replay", "--dry-run")
