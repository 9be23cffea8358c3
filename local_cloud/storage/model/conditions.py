"""Preconditions on generation and metageneration, and the one decision that they take: go on, 412 or 304.

Nothing else in the storage model compares generations with what a client expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from local_cloud.storage.model.errors import InvalidArgument, NotModified, PreconditionFailed


class Versioned(Protocol):
    """What can be compared: an object, or a bucket (whose generation is never asked for)."""

    @property
    def generation(self) -> int: ...

    @property
    def metageneration(self) -> int: ...


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

    def check(self, live: Versioned | None, *, reading: bool = False) -> None:
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


def integer(query: Mapping[str, str], key: str) -> int | None:
    """A whole number of the query, None if it is not given. Raises InvalidArgument."""
    text = query.get(key)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"Invalid value for {key}: '{text}'. Valid are whole numbers.") from None


def conditions_of(query: Mapping[str, str], *, source: bool = False) -> Conditions:
    """The conditions of a request: `ifGenerationMatch` and its kin, or with `source` `ifSourceGenerationMatch` and its kin."""
    prefix = "ifSource" if source else "if"
    return Conditions(
        generation_match=integer(query, f"{prefix}GenerationMatch"),
        generation_not_match=integer(query, f"{prefix}GenerationNotMatch"),
        metageneration_match=integer(query, f"{prefix}MetagenerationMatch"),
        # The Python client spells this one with a capital G when it uploads.
        metageneration_not_match=_either(query, f"{prefix}MetagenerationNotMatch", f"{prefix}MetaGenerationNotMatch"),
    )


def _either(query: Mapping[str, str], key: str, other_key: str) -> int | None:
    value = integer(query, key)
    return integer(query, other_key) if value is None else value
