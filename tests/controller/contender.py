"""A controller process that ticks a cloud of the test's: `python -m tests.controller.contender PORT KEY ticks NUMBER | die WHERE`."""

from __future__ import annotations

import os
import random
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.managers import BaseManager
from typing import Any

from batch.model.names import HISTORY
from batch.testing import MemoryBroker
from controller.model.execution import ExecutionInfo
from controller.observe.jobs import RunRequest
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes
from tests.controller.cloud_sim import Backlog, Clock, Cloud, Runner, Store, StoreCalls

THREADS = 4
TICKS_EACH = 125


@dataclass(frozen=True)
class Served:
    """Where a cloud can be reached."""

    port: int
    key: bytes


@contextmanager
def served(cloud: Cloud) -> Iterator[Served]:
    """The cloud of this process for others, on loopback."""

    class Manager(BaseManager):
        pass

    calls = StoreCalls(cloud)
    Manager.register("cloud", callable=lambda: cloud)
    Manager.register("store", callable=lambda: calls)
    key = secrets.token_bytes(16)
    server: Any = Manager(("127.0.0.1", 0), key).get_server()

    def serve() -> None:
        with suppress(SystemExit):  # that is how it ends
            server.serve_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Served(server.address[1], key)
    finally:
        server.stop_event.set()
        thread.join(60)


class Remote(BaseManager):
    pass


Remote.register("cloud")
Remote.register("store")


class RemoteRunner(Runner):
    """Dies where it is told to."""

    dies = ""

    def run(self, job: str, request: RunRequest) -> ExecutionInfo:
        if self.dies == "before run":
            os.kill(os.getpid(), signal.SIGKILL)
        found = super().run(job, request)
        if self.dies == "after run":
            os.kill(os.getpid(), signal.SIGKILL)
        return found


class RemoteStore(Store):
    dies = ""

    def write(self, name: str, data: bytes, **options: Any) -> Any:
        saved_by = (options.get("metadata") or {}).get("saved_by", "")
        here = {"before done": saved_by.endswith("/done"), "before history": name.startswith(HISTORY)}
        if here.get(self.dies):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(name, data, **options)


def main(port: str, key: str, what: str, detail: str) -> None:
    manager = Remote(("127.0.0.1", int(port)), bytes.fromhex(key))
    manager.connect()
    cloud: Any = manager.cloud()  # type: ignore[attr-defined]
    store = RemoteStore(manager.store())  # type: ignore[attr-defined]
    runner = RemoteRunner(cloud)
    runner.dies = store.dies = detail if what == "die" else ""
    rng = random.Random(detail)
    outside = Outside(store, runner, Backlog(cloud), Clock(cloud), rng, MemoryBroker().topic)
    if what == "die":
        tick_lanes(outside)
        return

    def ticks(_number: int) -> None:
        for _ in range(TICKS_EACH):
            tick_lanes(outside)
            cloud.ticked()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ticks, range(THREADS)))


if __name__ == "__main__":
    main(*sys.argv[1:])
