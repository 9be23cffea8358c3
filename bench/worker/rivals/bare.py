"""The limit: pull up to 1,000 and acknowledge them in one call, on raw protobuf; nothing is decoded, run or written.

    python -m bench.worker.rivals.bare <host:port> <subscription> <count>

No worker can do this, for it never looks at a message: it says what the server and one connection give.
"""

from __future__ import annotations

import sys

from google.pubsub_v1 import types

from bench.pubsub_load import PER_CALL, raw_method
from bench.worker.rivals.saying import say


def drain(address: str, subscription: str, count: int) -> None:
    """Until `count` messages are acknowledged."""
    pull, acknowledge = raw_method(address, "Subscriber/Pull"), raw_method(address, "Subscriber/Acknowledge")
    request = types.PullRequest.pb()(subscription=subscription, max_messages=PER_CALL).SerializeToString()
    parse, ack_request = types.PullResponse.pb().FromString, types.AcknowledgeRequest.pb()
    say("first_pull")
    acked = 0
    while acked < count:
        ack_ids = [received.ack_id for received in parse(pull(request)).received_messages]
        if ack_ids:
            acknowledge(ack_request(subscription=subscription, ack_ids=ack_ids).SerializeToString())
            acked += len(ack_ids)
    say("last_ack", count=acked)


if __name__ == "__main__":
    drain(sys.argv[1], sys.argv[2], int(sys.argv[3]))
