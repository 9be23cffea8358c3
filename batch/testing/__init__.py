"""The in-memory twins of the seams, and what else tests of handlers and workers need. They obey the same rules as the real ones.

`ManualClock` passes time, `MemoryObjectStore` and `MemoryBroker` stand for Cloud Storage and Pub/Sub, `run_handler` runs one
handler on one task. No test frameworks are imported, so that handlers can be tested with any.
"""

from batch.testing.clock import ManualClock
from batch.testing.faults import Faults
from batch.testing.handlers import HandlerRun, run_handler
from batch.testing.objects import MemoryObjectStore
from batch.testing.pubsub import MemoryBroker, MemorySubscription, MemoryTopic

__all__ = ["Faults", "HandlerRun", "ManualClock", "MemoryBroker", "MemoryObjectStore", "MemorySubscription", "MemoryTopic", "run_handler"]
