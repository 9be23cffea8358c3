"""`fanout retry`: a replay of the dead tasks of one submission."""

from __future__ import annotations

import click

from batch.client.stored_proof import proof_of
from batch.dead.filters import Filter
from batch.dead.rules import SLOWEST_RATE
from batch.model.errors import ObjectMissing
from controller.config import ControllerSettings
from fanout import cloud
from fanout.dead.acting import replay_all
from fanout.dead.scope import opened
from fanout.output import counted, say


@click.command()
@click.argument("submission_id")
@click.option("--failed-only", is_flag=True, required=True, help="Only its dead tasks: there is no other way, and this says so.")
@click.option("--rate", type=click.FloatRange(SLOWEST_RATE, 1_000_000), help="So many messages a second.")
@click.option("--all-subscriptions", is_flag=True, help="Also where subscriptions that are no lane's get the messages again.")
@click.option("--why", default="", help="The reason, for the log.")
@cloud.with_settings
def command(
    submission_id: str, failed_only: bool, rate: float | None, all_subscriptions: bool, why: str, settings: ControllerSettings
) -> None:
    """Publish the dead tasks of SUBMISSION_ID again, as `fanout dead replay --submission` does. What has succeeded stays as it is.

    A cancelled task cannot be retried: submit it anew.

    \b
    fanout retry s-20260131-120000-52e6b438 --failed-only
    """
    if not failed_only:
        raise click.UsageError("only dead tasks can be retried: add --failed-only")
    with opened(settings, (), Filter(submissions=(submission_id,))) as scope:
        try:
            proof = proof_of(scope.store, submission_id).proof
        except ObjectMissing as error:
            raise click.ClickException(f"there is no submission {submission_id} in bucket {settings.bucket_name} ({error})") from error
        count = replay_all(scope, rate=rate, why=why or f"retry of {submission_id}", all_subscriptions=all_subscriptions)
    dead, cancelled = proof.counts["dead"], proof.counts["cancelled"]
    if cancelled:
        say(f"{counted(cancelled, 'cancelled task')} cannot be retried: submit what is wanted after all anew")
    if count < dead:
        left = counted(dead - count, "dead task")
        say(f"{left} not in the log yet, or claimed by another replay: run the dead-letters job, then this again")
