"""`python -m controller`: serves the controller on PORT until it is told to end."""

from __future__ import annotations

import os
import sys

import uvicorn

from batch.errors import SettingsError
from controller import logs
from controller.config import controller_settings
from controller.service import create_app
from controller.wiring import connected

EXIT_SETTINGS = 2


def main() -> int:
    """Exit code 2 when settings are wrong; each problem is logged."""
    try:
        settings = controller_settings(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            logs.write("ERROR", problem)
        return EXIT_SETTINGS
    with connected(settings) as outside:
        logs.write("INFO", f"controller for project {settings.project}, region {settings.region}, bucket {settings.bucket_name}")
        host = "127.0.0.1" if settings.run_emulator else "0.0.0.0"
        uvicorn.run(create_app(outside), host=host, port=settings.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
