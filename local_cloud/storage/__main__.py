"""`python -m local_cloud.storage`: the local Cloud Storage as a process.

Standard output carries the ready line and nothing else.
"""

from __future__ import annotations

from local_cloud.clock import Clock
from local_cloud.service import HttpServer, announce, parser, wait_for_end
from local_cloud.storage.model import Storage
from local_cloud.storage.server import build_app
from local_cloud.storage.uploads import Uploads


def main() -> None:
    options = parser("storage").parse_args()
    clock = Clock()
    storage = Storage(options.state_dir, clock)
    uploads = Uploads(options.state_dir, storage, clock)
    server = HttpServer(build_app(storage, uploads, clock), options.host, options.port)
    address = server.start()
    announce(service="storage", http=f"http://{address}")

    def stop() -> None:
        server.stop()
        storage.close()

    wait_for_end(exit_with_stdin=options.exit_with_stdin, stop=stop)


if __name__ == "__main__":
    main()
