"""Allow policies of resources. A member that is a service account of this project, or Google's own agent, must exist, as with Google."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable
from typing import Any

from tests.deploy.recorder.answers import Refused

Policy = dict[str, Any]


class Policies:
    """`exists(email)` tells whether a service account does. Not safe to use from several threads."""

    def __init__(self, exists: Callable[[str], bool]) -> None:
        self.kept: dict[tuple[str, str], Policy] = {}
        self._exists = exists
        self._numbers = itertools.count(1)

    def get(self, api: str, name: str) -> Policy:
        return self.kept.get((api, name)) or {"version": 1, "etag": "AAAAAAAAAAA="}

    def set(self, api: str, name: str, policy: Policy) -> Policy:
        """Raises Refused for an old etag, and for members that do not exist."""
        if policy.get("etag") not in (None, self.get(api, name)["etag"]):
            raise Refused(409, "There were concurrent policy changes. Please retry the whole read-modify-write.", "ABORTED")
        for binding in policy.get("bindings", ()):
            for member in binding["members"]:
                self._check(member)
        bindings = [binding for binding in policy.get("bindings", ()) if binding["members"]]
        etag = base64.b64encode(next(self._numbers).to_bytes(8, "big")).decode()
        self.kept[(api, name)] = {"version": 1, "etag": etag, **({"bindings": bindings} if bindings else {})}
        return self.kept[(api, name)]

    def forget(self, api: str, name: str) -> None:
        self.kept.pop((api, name), None)

    def _check(self, member: str) -> None:
        kind, _, email = member.partition(":")
        known = kind in ("allUsers", "allAuthenticatedUsers", "user", "group", "domain", "principal", "principalSet", "deleted")
        if kind == "serviceAccount" and re.search(r"\.gserviceaccount\.com$", email) and not self._exists(email):
            raise Refused(400, f"Service account {email} does not exist.")
        if not known and kind != "serviceAccount":
            raise Refused(400, f"Invalid member {member!r}.")
