"""What Fanout logs, in workers, controller and front door: a closed table of events; one JSON line each, as Cloud Logging reads it.

A worker logs no line per task: the outcome is the record of a task, INFO lines are per flush or rarer.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from batch.logs import LEVELS, PRINTED, deliver, fields_of, record_of, takes
from batch.model.texts import plain

LOGGER = "fanout"
MAX_PRINTED_CHARS = 16_000
_MESSAGES = ("message", "msg", "event")
_SEVERITIES = ("severity", "level", "levelname")

EVENTS: dict[str, tuple[str, str]] = {
    "worker_started": ("INFO", "a worker begins; with its execution, index, share and lane"),
    "worker_ended": ("INFO", "the last line of a worker: exit reason and counts"),
    "worker_not_claimed": ("NOTICE", "another execution holds this decision's claim; this worker pulls nothing"),
    "worker_broken": ("ERROR", "a service is missing, forbidden or down; every message is nacked"),
    "worker_stuck": ("CRITICAL", "a thread of the worker sent no heartbeat; with the stacks of all; every message is nacked"),
    "worker_stopping": ("NOTICE", "SIGTERM or SIGINT came; no more pulls, messages that have not started are nacked"),
    "predecessor_broken": ("ERROR", "the try of this worker before this one ended broken; this one ends at once"),
    "flushed": ("INFO", "outcomes written and messages acknowledged; with their counts"),
    "flush_failed": ("WARNING", "outcomes could not be written or acknowledged; kept, and tried again"),
    "acks_lost": ("WARNING", "messages whose acknowledgement was refused; they are delivered again and count as done then"),
    "leases_lost": ("WARNING", "leases that could not be extended; the messages may be delivered again"),
    "lease_extension_failed": ("WARNING", "a call to extend leases failed; tried again before they end"),
    "deliveries_not_counted": (
        "WARNING",
        "the subscription counts no deliveries, so each message costs a request to the bucket; give it a dead-letter policy",
    ),
    "subscription_unread": (
        "WARNING",
        "this identity may pull from the subscription and not read it; its ack deadline, topic and dead-letter policy are guessed",
    ),
    "pull_failed": ("WARNING", "a pull failed; tried again with a growing wait"),
    "pull_abandoned": (
        "WARNING",
        "a pull had not ended when the worker had to; messages that it still brings are delivered again when their lease ends",
    ),
    "task_id_replaced": (
        "WARNING",
        "a message's task_id does not match the pattern, so its task is called by the message's id; logged once by a worker",
    ),
    "delayed": ("INFO", "tasks that must wait longer than 600 s wait in the bucket now, their messages acknowledged; with their count"),
    "delaying_failed": ("WARNING", "tasks could not be written to the bucket to wait there; their messages are nacked for 600 s"),
    "republished": ("INFO", "messages were published again and acknowledged, before the dead-letter policy takes them; with their count"),
    "republish_failed": (
        "WARNING",
        "messages that were delivered often could not be published again; they are nacked, and dead when the dead-letter policy is near",
    ),
    "wait_not_recorded": ("WARNING", "a snoozed task's message may come back early and its time could not be noted; it may run early"),
    "nack_failed": ("WARNING", "messages that could not be nacked; they are delivered again when their lease ends"),
    "attempt_failed": ("WARNING", "a handler raised; the task is tried again later, or dead-lettered"),
    "type_slowed": (
        "ERROR",
        "many different tasks of one type fail alike and none comes through; a few are tried, the others nacked unrun, until one does",
    ),
    "type_resumed": ("NOTICE", "a task of a slowed type ended other than by failing; with how many were tried and how many nacked unrun"),
    "slowing_not_kept": (
        "WARNING",
        "that a type is slowed could not be noted or removed; the next worker tries more, or fewer, of its tasks",
    ),
    "dead_lettered": ("ERROR", "a task is dead; with its id, type and reason"),
    "dependency_failed": ("WARNING", "a handler could not reach a service; its task is nacked and spends no attempt"),
    "runner_fault": ("ERROR", "a fault in Fanout met one message; it is nacked for a minute, the others go on"),
    "dead_letter_refused": ("ERROR", "a dead letter could not be published; its bytes are kept in the bucket"),
    "dead_letters_logged": (
        "INFO",
        "the dead-letters job wrote a part of a lane's log and acknowledged its messages; with how many it logged and returned",
    ),
    "return_failed": (
        "ERROR",
        "messages that no attempt had failed could not go back to their lane's topic; they come again in 600 s, and the job ends broken",
    ),
    "rules_applied": ("NOTICE", "letters were replayed by their lane's retry rules; with their count"),
    "dead_letters_ended": ("INFO", "the last line of a worker of the dead-letters job: exit reason and counts"),
    "cancels_unread": ("WARNING", "the list of cancelled tasks could not be read, or is damaged; what was known of it before still holds"),
    "progress_failed": ("WARNING", "progress could not be written; the controller sees the earlier value"),
    "handler_timed_out": ("ERROR", "a handler in a thread is past its time limit; a failed attempt is on record; with its stack"),
    "handler_slow": (
        "WARNING",
        "a handler has not come back for long, by SLOW_AFTER_S and by what its task type usually takes; with how far it is and its stack",
    ),
    "handlers_hang": ("ERROR", "as many handlers hang as a worker can bear; it ends stuck, what has not started is nacked"),
    "handler_progress": ("INFO", "how far a task is, as its handler says; at most one line in 10 s for each attempt"),
    "handler_uncancelled": ("WARNING", "an async handler goes on after it was cancelled for its time; a failed attempt is on record"),
    "loop_blocked": ("WARNING", "an async handler keeps the event loop from going on, and all async handlers wait; with its stack"),
    "loop_disturbed": ("ERROR", "something that an async handler left running raised SystemExit or the like; the loop goes on"),
    "handler_output": ("INFO", "a line that a handler printed, with the task's id; WARNING when it went to standard error"),
    "child_failed": ("ERROR", "a process for isolated handlers could not be started; its task is nacked and spends no attempt"),
    "temporary_files_left": (
        "WARNING",
        "files that an isolated handler left could not be removed; on Cloud Run they take memory until the worker ends",
    ),
    "quarantined_task_runs": ("WARNING", "a task that was running when its worker ended runs alone in a process of its own"),
    "marker_left": ("WARNING", "an in-progress marker could not be taken out of attempts/; the task may be quarantined later"),
    "process_changed": (
        "WARNING",
        "a handler left changed what belongs to the whole process, such as the working folder; it was put back: isolate that handler",
    ),
    "handler_stuck": (
        "ERROR",
        "a handler was still running when the worker had to end; its message is nacked, or has failed if it had a worker's whole time",
    ),
    "worker_cut_short": ("ERROR", "a service did not answer while the worker was stopping; it ended without its last flush"),
    "worker_crashed": ("CRITICAL", "a fault in Fanout itself, with its traceback"),
    "telemetry_failed": (
        "WARNING",
        "traces or metrics could not be exported, or more came than could; the work goes on without them; once a minute",
    ),
    "settings_wrong": ("ERROR", "a setting is missing or wrong, or the port is taken; one line for each problem, and the process ends"),
    "network_awaited": (
        "NOTICE",
        "a worker begins and cannot reach a service yet; it waits for its network, and spends no attempt; with what and how long at most",
    ),
    "network_reached": ("NOTICE", "what the worker waited for has answered, and it goes on; with how long it waited"),
    "project_not_named": ("WARNING", "GOOGLE_CLOUD_PROJECT is absent, and no metadata server answered in its place; with why"),
    "service_listening": ("INFO", "the controller or the front door serves; with its address"),
    "service_failed": ("ERROR", "the controller or the front door cannot begin: no client could be made"),
    "callers_checked": ("INFO", "the controller asks its callers for a token; with whose it takes"),
    "callers_unchecked": ("NOTICE", "the controller asks its callers for nothing: Cloud Run's own check must be on"),
    "connections_cut": (
        "WARNING",
        "requests that broke the limits of HTTP were refused unread, or too slow ones ended; with how many for which reason, once a minute",
    ),
    "request_refused": ("WARNING", "the controller refused a request, for its token or its origin"),
    "lane_ticked": ("INFO", "the decision for a lane, and what was launched; with its `health`, which metrics are made from"),
    "lane_troubled": ("WARNING", "the same, where the lane is on hold, a launch failed or delayed tasks could not be republished"),
    "round_ticked": ("INFO", "a tick of all lanes came to its end; with how many there are, and what their workers cost in the last day"),
    "job_refused": ("ERROR", "a job with the label of a lane is not ticked; with what is wrong with it"),
    "tick_failed": ("ERROR", "no lane was ticked: a service failed, or, with a traceback, a fault in Fanout itself"),
    "tick_cut_short": ("WARNING", "the controller ends while a tick runs; the next tick repairs what it left"),
    "lanes_not_written": (
        "WARNING",
        "the tick could not write controller/lanes.json; the dead-letters job works by what it says now. Tried again at the next tick",
    ),
    "ends_looked_at": ("INFO", "submissions may have ended: a tick sent their fanout.finish; with how many are open and were looked at"),
    "ends_troubled": ("WARNING", "the same, where the bucket or a lane is missing or a mark is damaged: those ends wait for a later tick"),
    "poke_counted": ("INFO", "the front door reported accepted tasks; with their count and lane"),
    "pokes_dropped": ("WARNING", "pokes were not counted; the gauge will show their tasks"),
    "task_not_submitted": ("ERROR", "the topic is missing, forbidden or refused a task; the client was told"),
    "publish_crashed": ("ERROR", "a fault in Fanout itself met a publish of the front door, with its traceback; the clients were told"),
    "answer_broken_off": ("WARNING", "outcomes that were being told broke off: the bucket failed, or their reader stopped reading"),
    "poke_failed": ("WARNING", "the controller did not take the report of accepted tasks; it finds them when the gauge shows them"),
}


def log(event: str, message: str = "", /, **fields: Any) -> None:
    """Log one event of the table with its fields; without `message` the event's name and its error or reason are the sentence. Raises
    KeyError for an event that is not in the table."""
    level = LEVELS[EVENTS[event][0]]
    if takes(LOGGER, level):
        detail = fields.get("error") or fields.get("reason") or fields.get("exit_reason")
        said = event.replace("_", " ")
        deliver(record_of(LOGGER, level, message or (f"{said}: {detail}" if detail else said), {"event": event, **fields}))


def log_printed(line: str, severity: str = "INFO", **facts: Any) -> None:
    """A line that a handler printed. One that is a JSON object, as Cloud Logging takes it from standard output, keeps its fields; message
    and severity under the names that loggers of JSON give them."""
    fields = _object_in(line)
    message = next((fields.pop(name) for name in _MESSAGES if isinstance(fields.get(name), str)), line)
    given = next((fields.pop(name) for name in _SEVERITIES if isinstance(fields.get(name), str)), severity)
    level = LEVELS.get(given.upper(), LEVELS[severity])
    if takes(LOGGER, level):
        named = {"event": PRINTED, **facts}
        own = {f"extra_{name}" if name in named else name: value for name, value in fields_of(fields).items()}
        deliver(record_of(LOGGER, level, plain(message, MAX_PRINTED_CHARS), own | named))


def _object_in(line: str) -> dict[str, Any]:
    if line.startswith("{") and line.endswith("}"):
        with suppress(ValueError, RecursionError):
            return dict(json.loads(line))
    return {}
