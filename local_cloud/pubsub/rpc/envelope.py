"""A publish request whose messages are still bytes: most of them are passed on unread.

The rule: it reads the same bytes as google.pubsub.v1.PublishRequest. Only the messages have another type, bytes, which protobuf writes in
the same way. Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


def _make() -> Any:
    file = FileDescriptorProto(name="local_cloud/envelope.proto", package="local_cloud", syntax="proto3")
    fields = file.message_type.add(name="PublishEnvelope").field
    fields.add(name="topic", number=1, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL)
    fields.add(name="messages", number=2, type=FieldDescriptorProto.TYPE_BYTES, label=FieldDescriptorProto.LABEL_REPEATED)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("local_cloud.PublishEnvelope"))


PublishEnvelope = _make()
"""The raw class: `topic` is a text, `messages` are serialized PubsubMessages."""


def enveloped(request: Any) -> Any:
    """A raw PublishRequest, or an envelope already, as an envelope."""
    return request if isinstance(request, PublishEnvelope) else PublishEnvelope.FromString(request.SerializeToString())
