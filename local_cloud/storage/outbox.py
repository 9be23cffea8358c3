"""Sends the messages of notifications to the local Pub/Sub: each until Pub/Sub has taken it, so that one may come twice.

A write never waits for this. While Pub/Sub does not answer, messages stay in the database, over restarts too; a message is dropped only
when its topic is gone, or Pub/Sub finds it invalid.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from socket import SHUT_RDWR
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_cloud.storage.api.rendering import object_json
from local_cloud.storage.model.errors import InvalidArgument, Unavailable
from local_cloud.storage.model.notifications import Notifications
from local_cloud.storage.model.store import Message, Store
from local_cloud.web.json_text import strict_json

BATCH_COUNT = 100
REQUEST_S = 10.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
_HOPELESS = (400, 404)


class NoAnswer(Exception):
    """Pub/Sub does not answer, or cannot do it now."""


class Outbox:
    """Where Pub/Sub is, `POST /pubsub` tells it."""

    def __init__(self, store: Store, notifications: Notifications) -> None:
        self._store = store
        self._address = ""
        self.pubsub = ""
        """Its HTTP address, once it is known."""
        self._stopping = False
        self._connection: HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        notifications.check_topic = self._check_topic

    def routes(self) -> list[Route]:
        """`POST /pubsub` with `{"url": "http://127.0.0.1:1234"}`: the HTTP address of the local Pub/Sub."""

        async def introduce(request: Request) -> JSONResponse:
            try:
                self.pubsub = str(strict_json(await request.body())["url"])
            except (ValueError, KeyError, TypeError) as error:
                return JSONResponse({"error": f'send {{"url": "http://127.0.0.1:<port>"}}: {error}'}, status_code=400)
            self._store.new_messages.set()
            return JSONResponse({})

        return [Route("/pubsub", introduce, methods=["POST"])]

    def start(self, address: str) -> None:
        """`address`: the URL of this service, for links in the messages."""
        self._address = address
        self._store.new_messages.set()
        self._thread.start()

    def stop(self) -> None:
        """What is not sent yet is sent after the next start. A Pub/Sub that is frozen delays nothing."""
        self._stopping = True
        self._store.new_messages.set()
        if self._connection is not None and self._connection.sock is not None:
            with suppress(OSError):
                self._connection.sock.shutdown(SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        pause_s: float | None = None
        while True:
            self._store.new_messages.wait(pause_s)
            if self._stopping:
                return
            self._store.new_messages.clear()
            try:
                while self.pubsub and not self._stopping and self._send():
                    pass
                pause_s = None
            except (NoAnswer, OSError):  # OSError: the disk is full, and what was sent could not be noted
                pause_s = min(LONGEST_PAUSE_S, 2 * (pause_s or FIRST_PAUSE_S))

    def _send(self) -> bool:
        """Send the oldest messages, of one topic; False when there are none. Raises NoAnswer, OSError."""
        messages = self._store.messages(BATCH_COUNT)
        if not messages:
            return False
        topic = messages[0][1].topic
        batch = [(number, message) for number, message in messages if message.topic == topic]
        status, text = self._call("POST", f"{topic}:publish", {"messages": [self._published(message) for _, message in batch]})
        if status in _HOPELESS:
            with suppress(OSError):  # the log may lie on a full disk
                sys.stderr.write(f"dropped {len(batch)} notifications: Pub/Sub refused them for {topic}: {text}\n")
        elif status != 200:
            raise NoAnswer(text)
        self._store.delete_messages([number for number, _ in batch])
        return True

    def _published(self, message: Message) -> dict[str, object]:
        shown = b"" if message.stored is None else json.dumps(object_json(message.stored, self._address), indent=2).encode()
        return {"data": base64.b64encode(shown).decode(), "attributes": message.attributes}

    def _check_topic(self, topic: str) -> None:
        """Raises InvalidArgument without such a topic, Unavailable."""
        if not self.pubsub:
            raise Unavailable("This Cloud Storage knows no Pub/Sub to send notifications to: tell it one with POST /pubsub.")
        try:
            status, text = self._call("GET", topic)
        except NoAnswer as error:
            raise Unavailable(f"The local Pub/Sub could not be asked for {topic}: {error}") from error
        if status == 404:
            raise InvalidArgument(f"Invalid argument: the Cloud Pub/Sub topic {topic} does not exist.")
        if status != 200:
            raise Unavailable(f"The local Pub/Sub could not be asked for {topic}: {text}")

    def _call(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Status and text of the answer. Raises NoAnswer."""
        connection = HTTPConnection(urlsplit(self.pubsub).netloc, timeout=REQUEST_S)
        if threading.current_thread() is self._thread:
            self._connection = connection
        try:
            connection.request(method, f"/v1/{quote(path, safe='/:%~')}", None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise NoAnswer(f"{self.pubsub} does not answer: {error}") from error
        finally:
            connection.close()
