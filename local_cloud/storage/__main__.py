"""`python -m local_cloud.storage`: the local Cloud Storage as a process.

Standard output carries the ready line and nothing else.
"""

from __future__ import annotations

from local_cloud.calls import Calls
from local_cloud.clock import Clock
from local_cloud.faults.routes import fault_routes
from local_cloud.faults.script import Script
from local_cloud.faults.timers import Later
from local_cloud.storage.api.faults import faults_around
from local_cloud.storage.api.recorded import recorded_around
from local_cloud.storage.api.server import build_app
from local_cloud.storage.model.storage import Storage
from local_cloud.storage.model.uploads import Uploads
from local_cloud.storage.outbox import Outbox
from local_cloud.web.refused_start import told
from local_cloud.web.service import HttpServer, make_private, parser, serve_until_end


def main() -> None:
    options = parser("storage").parse_args()
    make_private(options.state_dir)
    clock = Clock()
    storage = Storage(options.state_dir, clock)
    uploads = Uploads(storage, clock)
    script, later, calls = Script(), Later(clock), Calls()
    outbox = Outbox(storage.store, storage.notifications)
    around = recorded_around(calls, storage, faults_around(script, later, storage))
    app = build_app(storage, uploads, clock, around, [*fault_routes(script), *calls.routes(), *outbox.routes()])
    server = HttpServer(app, options.host, options.port)
    later.start()
    address = server.start()
    outbox.start(f"http://{address}")

    def stop() -> None:
        later.stop()
        server.stop()
        outbox.stop()
        storage.close()

    serve_until_end(exit_with_stdin=options.exit_with_stdin, stop=stop, service="storage", http=f"http://{address}")


if __name__ == "__main__":
    told("storage", main)
