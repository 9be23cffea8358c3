"""Settings of a subscription as they come over the wire: checked, completed with defaults, kept as bytes for the echo.

A setting that this server would not obey is refused, never stored in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub import names
from local_cloud.pubsub.policy import DAY_S, Policy
from local_cloud.pubsub.refusal import invalid, too_large, too_small, unsupported

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

_MUTABLE = {
    "ack_deadline_seconds",
    "dead_letter_policy",
    "retry_policy",
    "expiration_policy",
    "labels",
    "message_retention_duration",
}
_UNSUPPORTED = {
    "filter": "filters",
    "enable_message_ordering": "message ordering",
    "enable_exactly_once_delivery": "exactly-once delivery",
    "retain_acked_messages": "retaining acknowledged messages",
    "bigquery_config": "BigQuery subscriptions",
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
    kept.ClearField("topic")
    kept.state = _ACTIVE
    kept.push_config.SetInParent()
    kept.ack_deadline_seconds = kept.ack_deadline_seconds or _ACK_DEADLINE_S[0]
    _check("ack_deadline_seconds", kept.ack_deadline_seconds, _ACK_DEADLINE_S)
    if not kept.HasField("message_retention_duration"):
        kept.message_retention_duration.FromSeconds(_DEFAULT_RETENTION_S)
    _check("message_retention_duration", kept.message_retention_duration.ToSeconds(), _RETENTION_S)
    if not kept.HasField("expiration_policy"):
        kept.expiration_policy.ttl.FromSeconds(_DEFAULT_EXPIRATION_S)
    if kept.HasField("dead_letter_policy"):
        _complete_dead_letters(kept.dead_letter_policy)
    if kept.HasField("retry_policy"):
        _complete_retry(kept.retry_policy)
    settings: bytes = kept.SerializeToString()
    return settings, _policy(kept)


def updated(settings: bytes, patch: Any, paths: Sequence[str]) -> tuple[bytes, Policy]:
    """`settings` with the fields of `paths` taken from the raw Subscription `patch`; refuses like the real service."""
    if not paths:
        raise invalid("The update_mask in the UpdateSubscriptionRequest must be set, and must contain a non-empty paths list.")
    known = _SUBSCRIPTION.DESCRIPTOR.fields_by_name
    for path in paths:
        field = path.split(".", 1)[0]
        if field not in known:
            raise invalid(f"Invalid update_mask provided in the UpdateSubscriptionRequest: {field} is not a known Subscription field.")
        if field in _UNSUPPORTED and field != "filter":
            raise unsupported(_UNSUPPORTED[field])
        if field == "push_config":
            raise unsupported("push subscriptions")
        if field not in _MUTABLE:
            what = f"the {field} field in the Subscription is not mutable."
            raise invalid(f"Invalid update_mask provided in the UpdateSubscriptionRequest: {what}")
    merged = _SUBSCRIPTION.FromString(settings)
    FieldMask(paths=paths).MergeMessage(patch, merged, replace_message_field=True, replace_repeated_field=True)
    return completed(merged)


def echo(settings: bytes, topic: str) -> Any:
    """The raw Subscription that callers see."""
    raw = _SUBSCRIPTION.FromString(settings)
    raw.topic = topic
    return raw


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


def _policy(kept: Any) -> Policy:
    return Policy(
        ack_deadline_s=float(kept.ack_deadline_seconds),
        retention_s=_seconds(kept.message_retention_duration),
        dead_letter_topic=str(kept.dead_letter_policy.dead_letter_topic),
        max_attempt_count=int(kept.dead_letter_policy.max_delivery_attempts),
        min_backoff_s=_seconds(kept.retry_policy.minimum_backoff),
        max_backoff_s=_seconds(kept.retry_policy.maximum_backoff),
    )
