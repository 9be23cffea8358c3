"""The in-memory twins of the seams, and what else tests of handlers and workers need. They obey the same rules as the real ones.

`run_handler` runs one handler on one task and `run_group` a grouped one on several; `raw`, `notification`, `cloud_event` and `structured`
make the messages of publishers that do not know Fanout; a `Rehearsal` makes happen to one task what can
happen in production; `drain` runs whole workers over a list of tasks. `ManualClock` passes time, `MemoryObjectStore` and `MemoryBroker`
stand for Cloud Storage and Pub/Sub. No test frameworks are imported, so that handlers can be tested with any.
"""

from batch.testing.clock import ManualClock
from batch.testing.drained import DeadLetter, Drained, NotDrained, drain
from batch.testing.faults import Faults
from batch.testing.handlers import HandlerRun, run_group, run_handler
from batch.testing.messages import cloud_event, notification, raw, structured
from batch.testing.objects import MemoryObjectStore
from batch.testing.observed import Began
from batch.testing.pubsub import MemoryBroker, MemorySubscription, MemoryTopic
from batch.testing.rehearsal import Rehearsal

__all__ = [
    "Began",
    "DeadLetter",
    "Drained",
    "Faults",
    "HandlerRun",
    "ManualClock",
    "MemoryBroker",
    "MemoryObjectStore",
    "MemorySubscription",
    "MemoryTopic",
    "NotDrained",
    "Rehearsal",
    "cloud_event",
    "drain",
    "notification",
    "raw",
    "run_group",
    "run_handler",
    "structured",
]
