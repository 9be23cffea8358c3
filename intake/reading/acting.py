"""POST to submissions and tasks: cancel what has not started, replay what is dead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from batch.client.reading.progress import progress
from batch.dead import segments
from batch.dead.filters import Filter
from batch.dead.lanes import UNKNOWN_LANE, LaneFacts, read_lanes
from batch.dead.replaying import replay
from batch.dead.selecting import grouped
from batch.formats.kinds import no_envelopes
from batch.handling.cancels import cancel
from batch.model.clock import iso
from batch.services.ports import ObjectStore, Topic
from intake.access import Verb
from intake.problems import RequestRefused, Wrong, as_json
from intake.reading.context import Context, documented

REPLAY_FOR_S = 50.0
"""A retry that is longer answers then; the dead-letters job goes on with it within ten minutes."""
Why = Annotated[str, Query(max_length=500, description="the reason, which stands in outcomes and in the log of dead letters")]


def add_acting(app: FastAPI, context: Context) -> None:
    """Add the endpoints."""
    about: dict[str, Any] = {"response_model": None, "responses": documented("submission or task")}

    @app.post("/submissions/{submission_id}/cancel", summary="Cancel its tasks that have not started", **about)
    async def cancel_submission(request: Request, submission_id: str, why: Why = "") -> Response:
        lane, who = await context.submission(request, Verb.CANCEL, submission_id)
        return await _cancelled(context, "submission_id", submission_id, lane, who, why)

    @app.post("/tasks/{task_id}/cancel", summary="Cancel a task that has not started", **about)
    async def cancel_task(request: Request, task_id: str, lane: str = "", why: Why = "") -> Response:
        store = context.bucket
        if lane and lane not in await context.run(lambda: read_lanes(store)):
            text = f"there is no lane {lane[:80]!r}"
            raise RequestRefused(422, text, wrong=[Wrong(pointer="?lane", detail=text)])
        lane, who = await context.task(request, Verb.CANCEL, task_id, lane)
        return await _cancelled(context, "task_id", task_id, lane, who, why)

    @app.post("/submissions/{submission_id}/retry", summary="Publish its dead tasks again", **about)
    async def retry(request: Request, submission_id: str, why: Why = "") -> Response:
        _, who = await context.submission(request, Verb.RETRY, submission_id)
        return as_json(200, await context.run(lambda: _retried(context, submission_id, who or "the front door", why), context.slow))


async def _cancelled(context: Context, what: str, one: str, lane: str, who: str, why: str) -> Response:
    store, now = context.bucket, context.clock.now()
    entry = await context.run(lambda: cancel(store, lane, [one], who=who or "the front door", why=why, now=now))
    return as_json(200, {what: one, "lane": lane, "at": iso(entry.at), "until": iso(entry.until), "status": "cancelled"})


def _retried(context: Context, submission_id: str, who: str, why: str) -> dict[str, Any]:
    """Raises RequestRefused before anything is published, DependencyError; what was begun is then in the log, and goes on."""
    store, wanted = context.bucket, Filter(submissions=(submission_id,))
    lanes = read_lanes(store)
    before = progress(store, submission_id, lanes, context.clock.now())
    _refuse_others(store, wanted)
    until_s = context.clock.monotonic() + REPLAY_FOR_S
    replays: list[dict[str, Any]] = []
    topics = _topics(context, store, lanes, wanted)
    for lane in [one for one in lanes.values() if one.topic in topics]:
        details, reason = {"by": "the front door"}, why or f"retry of {submission_id}"
        result = replay(
            store,
            topics.__getitem__,
            lane,
            wanted.matches,
            details=details,
            rate=None,
            clock=context.clock,
            rng=context.rng,
            who=who,
            why=reason,
            wanted=wanted,
            until_s=until_s,
        )
        if result.action_id:
            told = {"lane": lane.name, "replay_id": result.action_id, "replayed_count": result.done_count}
            more = {"repeated_count": result.repeated_count, "skipped": dict(result.skipped), "complete": result.closed}
            replays.append({**told, **more})
    done = sum(one["replayed_count"] for one in replays)
    return {
        "submission_id": submission_id,
        "replayed_count": done,
        "complete": all(one["complete"] for one in replays),
        "dead_count": before.counts["dead"],
        "cancelled_count": before.counts["cancelled"],
        "not_in_log_count": max(0, before.counts["dead"] - done - sum(sum(one["skipped"].values()) for one in replays)),
        "replays": replays,
    }


def _refuse_others(store: ObjectStore, wanted: Filter) -> None:
    """As `fanout retry`: letters of no lane have no topic."""
    if any(segments.listed(store, UNKNOWN_LANE)) and grouped(store, UNKNOWN_LANE, wanted):
        how = f"publish them first, with fanout dead replay --lane {UNKNOWN_LANE} --to-lane LANE"
        raise RequestRefused(409, f"letters of this submission in log {UNKNOWN_LANE} are of no lane: {how}")


def _topics(context: Context, store: ObjectStore, lanes: Mapping[str, LaneFacts], wanted: Filter) -> Mapping[str, Topic]:
    """By name those of lanes in whose logs letters wait."""
    if not lanes:
        raise RequestRefused(409, f"bucket {store.bucket_name} names no lanes yet: run `fanout tick`, which writes them down")
    found: dict[str, Topic] = {}
    for lane in lanes.values():
        if not grouped(store, lane.name, wanted):
            continue
        if untaken := no_envelopes(lane.name, lane.accept):
            raise RequestRefused(409, untaken)
        topic = context.topics.get(lane.topic)
        if topic is None:
            what = f"letters wait in lane {lane.name}, and this front door does not publish to its topic {lane.topic}"
            raise RequestRefused(409, f"{what}: add it to LANES, or use `fanout retry`")
        found[lane.topic] = topic
    return found
