"""An answer without what Google's services always say confirms nothing: no message counts as published, no part as a whole object."""

from __future__ import annotations

import asyncio
import random

import pytest
from google import pubsub_v1

from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable
from batch.services.async_topic import GooglePublisher
from batch.services.objects import GoogleObjectStore
from batch.services.topic import GoogleTopic
from tests.seams import test_google_objects, test_google_pubsub

storage, pubsub = test_google_objects.server, test_google_pubsub.server
MESSAGES = [Outgoing(b"a", {}), Outgoing(b"b", {})]


@pytest.mark.parametrize("ids", [[], ["1"], ["1", "2", "3"]])
def test_messages_without_ids_are_not_published(pubsub: test_google_pubsub.Server, ids: list[str]) -> None:
    pubsub.answers += [pubsub_v1.PublishResponse.pb()(message_ids=ids)] * 2
    topic = GoogleTopic("p", "tasks")
    with pytest.raises(DependencyUnavailable, match=f"projects/p/topics/tasks: the answer has {len(ids)} message ids for 2 messages"):
        topic.publish(MESSAGES)
    topic.close()

    async def at_the_door() -> None:
        publisher = GooglePublisher("p", {"PUBSUB_EMULATOR_HOST": pubsub.address}, random.Random(1))
        try:
            await publisher.topic("tasks").publish(MESSAGES)
        finally:
            await publisher.close()

    with pytest.raises(DependencyUnavailable, match="message ids for 2 messages"):
        asyncio.run(at_the_door())


def test_a_part_of_an_object_is_not_read_as_the_whole(storage: test_google_objects.Server) -> None:
    storage.answers.append((206, b"he"))
    store = GoogleObjectStore("b", project="p", timeout_s=0.2)
    with pytest.raises(DependencyUnavailable, match=r"object one in bucket b .*does not come from Cloud Storage.*206"):
        store.read("one")
    store.close()
