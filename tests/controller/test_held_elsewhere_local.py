"""Another consumer's leases on the local cloud: its gauge counts them, workers find nothing, and the next tick launches nobody."""

from __future__ import annotations

from batch.model.names import progress_object
from batch.model.progress import to_metadata
from controller.decide.decision import HoldCause, Kind
from controller.observe.deployed import DeployedJobs
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes
from tests.controller.fakes import progress
from tests.controller.test_local_cloud import deployed, outside, publish, the_job
from tests.support import wait_until

__all__ = ["deployed", "outside"]


def test_a_second_puller_s_messages_launch_nobody_again(cloud: dict[str, str], outside: Outside, deployed: DeployedJobs) -> None:
    from google.cloud import pubsub_v1

    publish(cloud["GOOGLE_CLOUD_PROJECT"], 7)
    with pubsub_v1.SubscriberClient() as other:
        path = f"projects/{cloud['GOOGLE_CLOUD_PROJECT']}/subscriptions/tasks-sub"
        pulled = other.pull(subscription=path, max_messages=100, timeout=60).received_messages
        assert len(pulled) == 7
        other.modify_ack_deadline(subscription=path, ack_ids=[one.ack_id for one in pulled], ack_deadline_seconds=600)
    (first,) = tick_lanes(outside).results
    assert (first.decision.kind, first.decision.workers) == (Kind.LAUNCH, 1)
    job = the_job(outside.runner)  # type: ignore[arg-type]
    name = f"{job.full_name}/executions/{first.launched[0]}"

    def ended() -> bool:
        found = outside.runner.execution(name)
        return found is not None and not found.live

    wait_until(ended, 60, "the execution has ended")
    found_none = progress(10, outside.clock.now(), exit_reason="drained")
    outside.store.write(progress_object(first.launched[0], 0, 0), b"", metadata=to_metadata(found_none))
    (second,) = tick_lanes(outside).results
    assert (second.decision.kind, second.decision.hold_cause) == (Kind.HOLD, HoldCause.HELD_ELSEWHERE)
    assert f"7 messages are held by somebody else: {first.launched[0]} drained the subscription and found 0 of 7" in second.decision.reason
