"""Load on the local Storage: many small objects, written by threads of the real client.

The client is part of the measurement here, as in a worker.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from requests.adapters import HTTPAdapter

_numbers = itertools.count(1)


def write_seconds(url: str, *, count: int, size: int, threads: int) -> float:
    """Seconds until `count` new objects of `size` bytes are written, create-once, by `threads` threads that share a client."""
    client = storage.Client(project="bench", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})
    client._http.get_adapter(url).close()
    client._http.mount("http://", HTTPAdapter(pool_maxsize=threads))  # a connection for each thread
    bucket: Any = client.create_bucket(f"bench-{next(_numbers)}")
    content = b"x" * size

    def write(number: int) -> None:
        bucket.blob(f"objects/{number}").upload_from_string(content, if_generation_match=0)

    with ThreadPoolExecutor(threads) as pool:
        start_s = time.monotonic()
        list(pool.map(write, range(count)))
        seconds = time.monotonic() - start_s
    client.close()
    return seconds
