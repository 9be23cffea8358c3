"""Names of Pub/Sub resources: `projects/P`, `projects/P/topics/T`, `projects/P/subscriptions/S`.

Every name is checked where it enters; behind that, names are compared as whole strings only.
"""

from __future__ import annotations

import re

from local_cloud.pubsub.model.refusal import invalid

# https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_ID = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")
_RULE = "an id begins with a letter, not with goog, and has 3 to 255 letters, digits and characters of -_.~+%"
_PROJECT = re.compile(r"projects/([^/\s]+)")


def check(kind: str, name: str) -> str:
    """`name` itself if it is one of `kind` ("topics" or "subscriptions"); raises an INVALID_ARGUMENT refusal otherwise."""
    head, _, tail = name.partition(f"/{kind}/")
    if not _PROJECT.fullmatch(head) or not _ID.fullmatch(tail):
        raise invalid(f"Invalid [{kind}] name: (name={name}); {_RULE}")
    return name


def check_project(name: str) -> str:
    """`projects/P` itself; raises an INVALID_ARGUMENT refusal otherwise."""
    if not _PROJECT.fullmatch(name):
        raise invalid(f"Invalid project name: (name={name})")
    return name


def project_id(name: str) -> str:
    """The `P` of a checked name."""
    return name.split("/", 2)[1]


def short(name: str) -> str:
    """The last part of a checked name."""
    return name.rsplit("/", 1)[-1]
