"""Preconditions on generation and metageneration, and the one decision that they take: go on, 412 or 304.

Nothing else in the storage model compares generations with what a client expects.
"""

from __future__ import annotations

from dataclasses import dataclass

from local_cloud.storage.model.errors import NotModified, PreconditionFailed
from local_cloud.storage.model.records import Bucket, StoredObject


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the client expects of the live version; None: anything. Generation 0 stands for "does not exist".

    Source: the parameters of `objects.insert` in the JSON API's reference. It says that a not-match of generations fails
    when there is no live version, whatever the number.
    """

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    def check(self, live: Bucket | StoredObject | None, *, reading: bool = False) -> None:
        """Raises PreconditionFailed; for a failed not-match on a read NotModified."""
        generation = live.generation if live else 0
        metageneration = live.metageneration if live else None
        if self.generation_match is not None and self.generation_match != generation:
            raise PreconditionFailed
        if self.metageneration_match is not None and self.metageneration_match != metageneration:
            raise PreconditionFailed
        same_generation = self.generation_not_match is not None and (live is None or self.generation_not_match == generation)
        if same_generation or (self.metageneration_not_match is not None and self.metageneration_not_match == metageneration):
            raise NotModified if reading else PreconditionFailed


NO_CONDITIONS = Conditions()
