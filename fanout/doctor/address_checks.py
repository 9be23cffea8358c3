"""Whether a subnet has an address for every worker of the lanes that use it (direct VPC). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from controller.model.lane import Lane
from fanout.doctor.finding import Finding, Verdict, judged

RESERVED = 4
"""Of a subnet's primary range, by Google: network, gateway, the last but one, broadcast."""
BLOCK = 16
"""Cloud Run takes so many at a time."""
MAX_PREFIX = 26
"""Cloud Run wants a subnet of this size or a larger one."""


def of_addresses(subnet: str, lanes: Sequence[Lane], size: int) -> Finding:
    """`subnet` is `projects/P/regions/R/subnetworks/S`, `size` its number of addresses, `lanes` all that use it."""
    workers, usable = sum(lane.policy.max_workers for lane in lanes), max(0, size - RESERVED)
    needed = max(math.ceil(workers / BLOCK) * BLOCK, 2 ** (32 - MAX_PREFIX) - RESERVED)
    names = " and ".join(f"{lane.name} ({lane.policy.max_workers})" for lane in sorted(lanes, key=lambda one: one.name))
    good = f"its {usable} addresses are enough for max-workers of {names}, if nothing else uses them"
    what = f"it has {usable} addresses, and workers take up to {needed}, {BLOCK} at a time: max-workers of {names}"
    why = (
        "a launch that finds no free address fails, and its lane is held as broken; the addresses of an execution are free only a while "
        f"after it ended, so a subnet larger than this is better; or lower fanout/max-workers to {max(usable // BLOCK * BLOCK, 1)} in all"
    )
    _, project, _, region, _, name = subnet.split("/")
    prefix = 32 - math.ceil(math.log2(needed + RESERVED))
    command = f"gcloud compute networks subnets expand-ip-range {name} --project={project} --region={region} --prefix-length={prefix}"
    return judged(needed <= usable, f"subnet {name}", "addresses", good, what, why, command)


def unread(subnet: str, problem: str) -> Finding:
    """Somebody may run lanes and not see networks: that is no fault of a lane."""
    name = subnet.rsplit("/", 1)[-1]
    what = f"{problem}; compute.subnetworks.get is needed, as in roles/compute.networkViewer, and the API compute.googleapis.com"
    return Finding(f"subnet {name}", "addresses", Verdict.NOT_CHECKED, what)


def missing(subnet: str) -> Finding:
    """A job names it, and it is not there."""
    why = "no worker of a lane that uses it can start"
    command = "edit jobs.yaml, then: fanout apply jobs.yaml"
    return Finding(f"subnet {subnet.rsplit('/', 1)[-1]}", "addresses", Verdict.WRONG, f"{subnet} does not exist", why, command)
