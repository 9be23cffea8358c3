"""Settings of a subscription as they come over the wire: checked, completed with defaults, kept as bytes for the echo.

A setting that has no effect here is refused, never stored in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.messages.filters import Filter, FilterError, parse
from local_cloud.pubsub.messages.policy import DAY_S, Policy
from local_cloud.pubsub.model import names
from local_cloud.pubsub.model.refusal import invalid, too_large, too_small, unsupported

_SUBSCRIPTION = pubsub.Subscription.pb()
_ACTIVE = 1

# Limits and defaults: https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#subscription
_ACK_DEADLINE_S = (10, 600)
_RETENTION_S = (600, 31 * int(DAY_S))
_ATTEMPTS = (5, 100)
_BACKOFF_S = (0, 600)
_DEFAULT_BACKOFF_S = (10, 600)
_DEFAULT_RETENTION_S = 7 * int(DAY_S)
_DEFAULT_EXPIRATION_S = 31 * int(DAY_S)
_LEAST_EXPIRATION_S = int(DAY_S)
# The longest duration that protobuf knows.
_MOST_EXPIRATION_S = 315_576_000_000

_MUTABLE = {
    "ack_deadline_seconds",
    "dead_letter_policy",
    "retry_policy",
    "expiration_policy",
    "labels",
    "message_retention_duration",
    "push_config",
    "retain_acked_messages",
    "enable_exactly_once_delivery",
}
_UNSUPPORTED = {
    "bigquery_config": "BigQuery subscriptions",
    "bigtable_config": "Bigtable subscriptions",
    "cloud_storage_config": "Cloud Storage subscriptions",
    "message_transforms": "message transforms",
}


def completed(raw: Any) -> tuple[bytes, Policy]:
    """The settings of a raw Subscription with defaults filled in (without its topic), and what they mean.

    Raises an INVALID_ARGUMENT or UNIMPLEMENTED refusal.
    """
    _refuse_unsupported(raw)
    kept = _SUBSCRIPTION()
    kept.CopyFrom(raw)
    for field in ("topic", "topic_message_retention_duration", "tags"):
        kept.ClearField(field)
    kept.state = _ACTIVE
    kept.push_config.SetInParent()
    kept.ack_deadline_seconds = kept.ack_deadline_seconds or _ACK_DEADLINE_S[0]
    _check("ack_deadline_seconds", kept.ack_deadline_seconds, _ACK_DEADLINE_S)
    if not kept.HasField("message_retention_duration"):
        kept.message_retention_duration.FromSeconds(_DEFAULT_RETENTION_S)
    check_retention(kept.message_retention_duration.ToSeconds())
    if not kept.HasField("expiration_policy"):
        kept.expiration_policy.ttl.FromSeconds(_DEFAULT_EXPIRATION_S)
    elif kept.expiration_policy.HasField("ttl"):
        _check("expiration_policy.ttl", kept.expiration_policy.ttl.ToSeconds(), (_LEAST_EXPIRATION_S, _MOST_EXPIRATION_S))
    if kept.HasField("dead_letter_policy"):
        _complete_dead_letters(kept.dead_letter_policy)
    if kept.HasField("retry_policy"):
        _complete_retry(kept.retry_policy)
    settings: bytes = kept.SerializeToString()
    return settings, _policy(kept)


def updated(settings: bytes, patch: Any, paths: Sequence[str]) -> tuple[bytes, Policy]:
    """`settings` with the fields of `paths` taken from the raw Subscription `patch`; refuses like the real service."""
    merged = _SUBSCRIPTION.FromString(settings)
    merge(merged, patch, FieldMask(paths=paths), _MUTABLE, _UNSUPPORTED)
    return completed(merged)


def merge(kept: Any, patch: Any, mask: Any, mutable: Set[str], unsupported_fields: Mapping[str, str]) -> None:
    """Take the fields that a raw FieldMask names from `patch` into `kept`, both raw messages of one kind. Refuses like the service."""
    kind = kept.DESCRIPTOR.name
    problem = f"Invalid update_mask provided in the Update{kind}Request"
    if not mask.paths:
        raise invalid(f"The update_mask in the Update{kind}Request must be set, and must contain a non-empty paths list.")
    present = {field.name for field, _value in patch.ListFields()}
    for path in mask.paths:
        field = path.partition(".")[0]
        if not _is_known(path, kept.DESCRIPTOR):
            raise invalid(f"{problem}: {path} is not a known {kind} field.")
        if field in unsupported_fields:
            # Terraform names all fields, also those that it does not set.
            if field in present:
                raise unsupported(unsupported_fields[field])
        elif field not in mutable:
            raise invalid(f"{problem}: the '{path}' field in the {kind} is not mutable.")
    mask.MergeMessage(patch, kept, replace_message_field=True, replace_repeated_field=True)


def _is_known(path: str, descriptor: Any) -> bool:
    """Whether `path` leads to a field, through single messages only: not into a map or a list."""
    name, _, rest = path.partition(".")
    field = descriptor.fields_by_name.get(name)
    if field is None or not rest:
        return field is not None
    # Maps and lists have no presence.
    return field.message_type is not None and field.has_presence and _is_known(rest, field.message_type)


def policy(settings: bytes) -> Policy:
    """The policy that stored settings mean."""
    return _policy(_SUBSCRIPTION.FromString(settings))


def detached(settings: bytes) -> tuple[bytes, Policy]:
    """`settings` of a subscription that gets nothing from its topic any more."""
    kept = _SUBSCRIPTION.FromString(settings)
    kept.detached = True
    return kept.SerializeToString(), _policy(kept)


def echo(settings: bytes, topic: str, topic_retention_s: float = 0.0) -> Any:
    """The raw Subscription that callers see."""
    raw = _SUBSCRIPTION.FromString(settings)
    raw.topic = topic
    if topic_retention_s:
        raw.topic_message_retention_duration.FromSeconds(int(topic_retention_s))
    return raw


def check_retention(seconds: int) -> None:
    """Of a topic or a subscription."""
    _check("message_retention_duration", seconds, _RETENTION_S)


def _refuse_unsupported(raw: Any) -> None:
    present = {field.name for field, _value in raw.ListFields()}
    for field, what in _UNSUPPORTED.items():
        if field in present:
            raise unsupported(what)
    if raw.push_config.push_endpoint:
        raise unsupported("push subscriptions")


def _check(field: str, value: int, bounds: tuple[int, int]) -> None:
    if value < bounds[0]:
        raise too_small(field, value, bounds[0])
    if value > bounds[1]:
        raise too_large(field, value, bounds[1])


def _complete_dead_letters(kept: Any) -> None:
    names.check("topics", kept.dead_letter_topic)
    kept.max_delivery_attempts = kept.max_delivery_attempts or _ATTEMPTS[0]
    _check("max_delivery_attempts", kept.max_delivery_attempts, _ATTEMPTS)


def _complete_retry(kept: Any) -> None:
    for field, default in zip(("minimum_backoff", "maximum_backoff"), _DEFAULT_BACKOFF_S, strict=True):
        if not kept.HasField(field):
            getattr(kept, field).FromSeconds(default)
        _check(field, getattr(kept, field).ToSeconds(), _BACKOFF_S)
    _check("maximum_backoff", kept.maximum_backoff.ToSeconds(), (kept.minimum_backoff.ToSeconds(), _BACKOFF_S[1]))


def _seconds(duration: Any) -> float:
    return float(duration.ToNanoseconds()) / 1e9


def _filter(text: str) -> Filter:
    try:
        return parse(text)
    except FilterError as error:
        raise invalid(f"Invalid filter {error} (filter={text})") from error


def _policy(kept: Any) -> Policy:
    return Policy(
        ack_deadline_s=float(kept.ack_deadline_seconds),
        retention_s=_seconds(kept.message_retention_duration),
        dead_letter_topic=str(kept.dead_letter_policy.dead_letter_topic),
        max_attempt_count=int(kept.dead_letter_policy.max_delivery_attempts),
        min_backoff_s=_seconds(kept.retry_policy.minimum_backoff),
        max_backoff_s=_seconds(kept.retry_policy.maximum_backoff),
        filter=_filter(kept.filter) if kept.filter else None,
        is_ordered=bool(kept.enable_message_ordering),
        is_exactly_once=bool(kept.enable_exactly_once_delivery),
        retains_acked=bool(kept.retain_acked_messages),
        is_detached=bool(kept.detached),
    )
