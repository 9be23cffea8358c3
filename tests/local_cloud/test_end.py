"""A service ends at a signal, whenever it comes and whichever thread it hits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import clean_environment

MAIN = """
import os, signal, sys, threading
from local_cloud.web.service import serve_until_end

class Line:
    def write(self, text):
        if "service" in text:
            {begin}
    def flush(self):
        pass

def told():
    while ") S " not in open(f"/proc/self/task/{{os.getpid()}}/stat").read():
        pass  # the main thread does not wait yet
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

sys.stdout = Line()
serve_until_end(exit_with_stdin=False, stop=lambda: sys.stderr.write("stopped"), service="one")
"""
WITH_THE_READY_LINE = "os.kill(os.getpid(), signal.SIGTERM)"
IN_ANOTHER_THREAD = "threading.Thread(target=told, daemon=True).start()"


@pytest.mark.skipif(sys.platform != "linux", reason="which thread waits is seen in /proc")
@pytest.mark.parametrize("begin", [WITH_THE_READY_LINE, IN_ANOTHER_THREAD], ids=["with the ready line", "in another thread"])
def test_a_signal_is_heard(begin: str) -> None:
    command = [sys.executable, "-c", MAIN.format(begin=begin)]
    done = subprocess.run(command, capture_output=True, env=clean_environment(), text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "stopped")
