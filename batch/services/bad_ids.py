"""Which ids of a request Pub/Sub refused: read from its error, so that one bad id never loses the others."""

from __future__ import annotations

from dataclasses import dataclass


def code_of(error: Exception) -> str:
    """The name of an error's gRPC status; UNKNOWN when it has none."""
    code = getattr(error, "grpc_status_code", None)
    return str(getattr(code, "name", "UNKNOWN"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failed request says about its ids: `bad` ones, batches to send `again` (after a `pause`), or that all of it `failed`."""

    bad: list[str]
    again: list[list[str]]
    pause: bool = False
    failed: bool = False


def judge_ids(error: Exception, ids: list[str]) -> Verdict:
    """From the error's details where it names ids (exactly-once delivery), else by halving until single ids are found."""
    named = getattr(error, "metadata", None) or {}
    told = {ack_id: str(named[ack_id]) for ack_id in ids if ack_id in named}
    if told:
        again = [ack_id for ack_id, reason in told.items() if reason.startswith("TRANSIENT")]
        return Verdict([ack_id for ack_id in told if ack_id not in again], [again] if again else [], pause=bool(again))
    if code_of(error) != "INVALID_ARGUMENT":
        return Verdict([], [], failed=True)
    if len(ids) == 1:
        return Verdict(ids, [])
    middle = len(ids) // 2
    return Verdict([], [ids[:middle], ids[middle:]])
