"""The retry rules of a lane: which dead letters are replayed without a person, when, how often and how fast.

A letter that no rule takes waits for a person; so does one that was replayed as often as the rules allow.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from batch.dead.letters import Letter
from batch.model.clock import from_iso

ANY = "*"
"""Stands for every error."""
MAX_WAIT_S = 7 * 24 * 3600.0
"""However often the wait was doubled."""
MAX_DOUBLINGS = 20
SLOWEST_RATE = 0.01
"""Of a replay, a second: one without progress for ten minutes is resumed, and an execution of the job must come to its first message."""


@dataclass(frozen=True, slots=True)
class Rules:
    """`errors`: types of errors, fingerprints, or `ANY`; empty: none is replayed. `after_s`: how long a letter waits first, twice as long
    after each replay. `times`: a task that was replayed so often waits for a person. `rate`: replays a second."""

    errors: tuple[str, ...] = ()
    after_s: float = 600.0
    times: int = 3
    rate: float = 100.0

    def take(self, letter: Letter) -> bool:
        """Whether the letter is replayed without a person, now or later."""
        if letter.kept_because or letter.replay_number >= self.times:
            return False
        return ANY in self.errors or letter.error_type in self.errors or letter.fingerprint in self.errors

    def due_s(self, letter: Letter) -> float:
        """When (Unix seconds) it is replayed: later by up to as much again, by a hash of its task, so that what died together does not come
        back together. Raises ValueError for a letter without a time."""
        wait_s = min(MAX_WAIT_S, self.after_s * 2.0 ** min(letter.replay_number, MAX_DOUBLINGS))
        digest = hashlib.sha256(f"{letter.task_id} {letter.replay_number}".encode("utf-8", "replace")).digest()
        return from_iso(letter.died_at) + wait_s * (1 + int.from_bytes(digest[:4], "big") / 2**32)

    def due(self, letter: Letter, now_s: float) -> bool:
        """Whether the letter is to be replayed now."""
        try:
            return self.take(letter) and self.due_s(letter) <= now_s
        except ValueError:
            return False


NO_RULES = Rules()
"""Every dead letter waits for a person."""
