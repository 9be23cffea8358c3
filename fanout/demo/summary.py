"""The end of the demo on one page: the proof, the workers, the cost, where to look, and what does not hold.

It prints what was counted, also when that is not what was hoped for.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from batch.client.proof import Proof
from batch.model.clock import from_iso
from batch.model.texts import printable
from fanout.demo.display import numbers
from fanout.demo.result import Result, assigned, cost
from fanout.demo.snapshot import LaneSnapshot
from fanout.demo.workload import UNKNOWN_TYPE
from fanout.execution.tries import WorkerTry
from fanout.submission.proof import dead_group

PROBLEMS_SHOWN = 30
TABLES_FROM = 90
"""Columns of a terminal below which the tables would be cut."""


def print_summary(console: Console, result: Result, problems: Sequence[str], *, state_dir: Path, results: Path) -> None:
    """Everything, the verdict last."""
    console.print()
    wide = console.width >= TABLES_FROM
    if wide:
        console.print(_proof_table(result))
    else:
        _print_lines(console, proof_lines(result))
    for proof in result.proofs:
        for group in proof.dead:
            dead = "dead on purpose" if repr(UNKNOWN_TYPE) in group.example.reason else "dead"
            console.print(Text(printable(f"{dead}: {dead_group(group)}")))
    console.print()
    tries = [one for lane in result.lanes for one in lane.tries]
    if wide:
        console.print(_worker_table(tries))
    else:
        _print_lines(console, worker_lines(tries))
    console.print()
    _print_lines(console, [*_share_lines(result.lanes), *_rate_lines(result), _cost_line(result.lanes)])
    console.print()
    # Commands are there to be copied: no line break that is not theirs.
    _print_lines(console, where_to_look(result.proofs, state_dir, results), soft_wrap=True)
    console.print()
    _print_lines(console, verdict_lines(result, problems), style="bold red" if problems else "bold green")


def _print_lines(console: Console, lines: Sequence[str], *, style: str = "", soft_wrap: bool | None = None) -> None:
    for line in lines:
        console.print(Text(printable(line), style=style), soft_wrap=soft_wrap)


def proof_lines(result: Result) -> list[str]:
    """The proof for a narrow terminal: a line a submission, zeros left out."""
    lines = []
    for proof in result.proofs:
        counts = ", ".join(f"{count:,} {name}" for name, count in proof.counts.items() if count)
        lines.append(f"{proof.submission_id}: {proof.submitted_count:,} submitted: {counts or 'nothing'}, missing {len(proof.missing)}")
    return lines


def worker_lines(tries: Sequence[WorkerTry]) -> list[str]:
    """The workers for a narrow terminal."""
    lines = []
    for one in tries:
        retry = f" retry {one.retry}" if one.retry else ""
        lines.append(f"{one.execution} {one.index}{retry}: {one.progress.acked:,} of {one.progress.share:,}, {one.state}")
    return lines


def verdict_lines(result: Result, problems: Sequence[str]) -> list[str]:
    """The last lines: what was proven, or what does not hold."""
    if not problems:
        total = dict(result.total)
        submitted, missing = total.pop("submitted"), total.pop("missing")
        return [f"proven: {submitted:,} submitted = {' + '.join(f'{count:,} {name}' for name, count in total.items())}, missing {missing}"]
    more = [f"and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
    return ["NOT proven:", *(f"  {problem}" for problem in problems[:PROBLEMS_SHOWN]), *(f"  {line}" for line in more)]


def _proof_table(result: Result) -> Table:
    names = list(result.total)
    table = Table("submission", *numbers(*names), box=None, pad_edge=False, title="proof, task by task", title_justify="left")
    for proof in result.proofs:
        counts = {"submitted": proof.submitted_count, **proof.counts, "missing": len(proof.missing)}
        table.add_row(proof.submission_id, *(f"{counts[name]:,}" for name in names))
    table.add_row("total", *(f"{count:,}" for count in result.total.values()), style="bold")
    return table


def _worker_table(tries: Sequence[WorkerTry]) -> Table:
    columns = [Column("execution", no_wrap=True), *numbers("index", "retry", "share", "taken", "acked", "returned", "seconds")]
    table = Table(*columns, "exit reason", box=None, pad_edge=False, title="workers", title_justify="left")
    for one in tries:
        told = one.progress
        counts = (one.index, one.retry, told.share, told.taken, told.acked, told.returned)
        table.add_row(one.execution, *(f"{count:,}" for count in counts), f"{one.seconds:.1f}", one.state)
    return table


def _share_lines(lanes: Sequence[LaneSnapshot]) -> list[str]:
    lines = []
    for lane in lanes:
        for worked in lane.executions:
            shares = [tries[0].share for _, tries in sorted(worked.tries.items()) if tries]
            sums = f"{' + '.join(str(one) for one in shares)} = {sum(shares)}"
            lines.append(f"shares of {worked.info.name}: {sums}, assigned {assigned(worked)}")
    return lines


def _rate_lines(result: Result) -> list[str]:
    ends = [from_iso(proof.last_finished_at) for proof in result.proofs if proof.last_finished_at]
    launches = [worked.info.created_at for lane in result.lanes for worked in lane.executions]
    if not ends or not launches:
        return []
    seconds = max(ends) - min(launches)
    done = result.total["submitted"] - result.total["missing"]
    lines = [f"throughput: {done:,} tasks in {seconds:.1f} s from the first launch to the last outcome, {done / seconds:,.0f} a second"]
    repeated = sum(proof.repeated_line_count for proof in result.proofs)  # to be expected after a kill
    return [*lines, f"redelivered and done again, without effect: {repeated}"] if repeated else lines


def _cost_line(lanes: Sequence[LaneSnapshot]) -> str:
    parts = ", ".join(f"{lane.lane.name} ${cost(lane):.4f}" for lane in lanes if lane.executions)
    total = sum(cost(lane) for lane in lanes)
    return f"on Cloud Run these workers would cost ${total:.4f} at list price, a minute each at least: {parts}"


def where_to_look(proofs: Sequence[Proof], state_dir: Path, results: Path) -> list[str]:
    """Folders, logs, and commands to try next."""
    submission = proofs[0].submission_id if proofs else "SUBMISSION"
    activate = "" if shutil.which("fanout") else f", after `. {os.path.relpath(sys.prefix)}/bin/activate`"
    folder = shlex.quote(str(state_dir))
    return [
        "where to look (all of it plain files):",
        f"  objects        {results}  (processed/, results/, outcomes/, submissions/, controller/)",
        f"  workers' logs  {state_dir / 'run' / 'executions'}/<execution>/<index>-<retry>.log",
        f"  services' logs {state_dir}/*.log",
        f"what to try next{activate}:",
        f"  fanout local up --quick --state-dir {folder}   # in another terminal: the bucket and the jobs are still there",
        f'  eval "$(fanout local env --state-dir {folder})"; export BUCKET_NAME={results.name}',
        f"  fanout proof {submission}",
    ]
