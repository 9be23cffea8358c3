"""`fanout doctor`: check what lanes need outside of this program, and fix what is safe to fix."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing

import click

from batch.model.errors import FanoutError
from controller.config import ControllerSettings
from fanout import cloud
from fanout.doctor.examination import Examiner
from fanout.doctor.finding import Finding, healthy, report
from fanout.doctor.place import Place
from fanout.doctor.services import Facts, Fixer
from fanout.output import EXIT_FINE, EXIT_TROUBLE, counted, say, show_json, tell


@click.command()
@click.argument("lanes", nargs=-1)
@click.option("--fix", is_flag=True, help="Fix what is safe to fix, after showing it and asking; then check again.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask.")
@click.option("--verbose", is_flag=True, help="Also show what is fine.")
@cloud.as_json_option
@cloud.with_settings
def command(lanes: tuple[str, ...], fix: bool, yes: bool, verbose: bool, as_json: bool, settings: ControllerSettings) -> None:
    """Check jobs, topics, subscriptions, dead letters, bucket, permissions, Monitoring and Scheduler of LANES, or of all.

    Each finding says what is wrong, why it matters, and the command that fixes it. --fix does that for settings of subscriptions and
    jobs, and creates topics and subscriptions that are missing; it deletes nothing, grants nothing, and leaves the bucket alone. What
    it changes in a job should be in jobs.yaml too, or the next `fanout apply` undoes it.

    Permissions are those of the caller. To check the controller's or the workers', run it as their service account: `gcloud auth
    application-default login --impersonate-service-account=EMAIL`. What a service cannot tell, such as permissions on the local cloud,
    is "not checked".

    Ends with 1 when something is wrong, or could not be read.

    \b
    fanout doctor
    fanout doctor default --fix

    JSON: findings (about, check, verdict, what, why, command, fixable) and fixed (about, check, error). A verdict is fine, advice, wrong,
    not_checked or unreadable.
    """
    place = Place(
        settings.project,
        settings.region,
        settings.bucket_name,
        settings.billing_project,
        os.environ.get("CONTROLLER_URL", ""),
        settings.oidc_audience,
    )
    with cloud.connected(settings) as outside, open_facts(settings) as facts:
        examiner = Examiner(facts, outside, place)
        findings = examiner.examine(lanes)
        fixed: list[dict[str, object]] = []
        if fix and any(one.fix for one in findings):
            fixed = _fixed(findings, settings, yes=yes, beside_json=as_json)
            findings = examiner.examine(lanes)
    if as_json:
        show_json({"findings": [one.json() for one in findings], "fixed": fixed})
    else:
        tell(*report(findings, show_fine=verbose))
    sys.exit(EXIT_FINE if healthy(findings) and not any(one["error"] for one in fixed) else EXIT_TROUBLE)


def open_facts(settings: ControllerSettings) -> AbstractContextManager[Facts]:
    """Through Google's clients. Raises DependencyError."""
    from fanout.doctor.google_services import GoogleFacts

    pubsub_emulated, storage_emulated = (bool(os.environ.get(name)) for name in ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"))
    return closing(GoogleFacts(settings, pubsub_emulated=pubsub_emulated, storage_emulated=storage_emulated))


def open_fixer(settings: ControllerSettings) -> AbstractContextManager[Fixer]:
    """Through Google's clients. Raises DependencyError."""
    from fanout.doctor.google_services import GoogleFixer

    return closing(GoogleFixer(settings))


def _fixed(findings: Sequence[Finding], settings: ControllerSettings, *, yes: bool, beside_json: bool) -> list[dict[str, object]]:
    """Show the fixes, ask, and do them. A fix that fails does not stop the others. Raises click.Abort, DependencyError."""
    fixes = [(one, one.fix) for one in findings if one.fix is not None]
    say(f"{counted(len(fixes), 'change')} in {settings.where}:", err=beside_json)
    for one, _ in fixes:
        say(f"  {one.about}: {one.what}", f"    {one.command}", err=beside_json)
    if not yes:
        click.confirm("do this?", abort=True, err=beside_json)
    done: list[dict[str, object]] = []
    with open_fixer(settings) as fixer:
        for one, fix in fixes:
            error = ""
            try:
                fix(fixer)
            except FanoutError as failure:
                error = str(failure)
            done.append({"about": one.about, "check": one.check, "error": error or None})
            say(f"NOT fixed: {one.about}: {one.check}: {error}" if error else f"fixed: {one.about}: {one.check}", err=beside_json)
    return done
