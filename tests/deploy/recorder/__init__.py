"""A recording endpoint: the real gcloud takes it for its proxy, so that every request is seen, and none leaves this machine.

What the local cloud serves goes on to it. Everything else is kept as resources by URL: what was not created is not found. A request that it
does not know is refused by name, and `Recorder.refused` has it: no command seems to have done what was not done.
"""

from tests.deploy.recorder.record import Fault, Request
from tests.deploy.recorder.recorder import Recorder

__all__ = ["Fault", "Recorder", "Request"]
