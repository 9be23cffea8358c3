"""The Python client of the front door: `Client`, and `AsyncClient` for programs with an event loop. Needs the extra `client`.

with Client("https://intake-….run.app", token=my_token) as door:
    receipt = door.submit_many({"task_type": "thumbnail", "filename": name} for name in names)
    door.wait(receipt.submission_id)
"""

from batch.client.http.clients import AsyncClient, Client
from batch.client.http.exchange import DoorRefused
from batch.client.http.operations import Receipt

__all__ = ["AsyncClient", "Client", "DoorRefused", "Receipt"]
