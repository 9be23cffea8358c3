"""`fanout.webhook`: tells an address what a submission has come to, signed as the Standard Webhooks convention says.

A webhook arrives at least once, always under the id of its task. No secret, path or query stands in a log or an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batch.built_in.addresses import Destination, Resolve, destination, resolved
from batch.ends.options import WEBHOOK
from batch.model.errors import Permanent, Retry
from batch.model.message import Task

CONNECT_S = 5.0
READ_S = 20.0
MOST_S = 45.0
"""Then the connection is cut: a receiver that sends a byte now and then would hold its thread for ever."""
GONE = 410
_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Webhook:
    """`secrets` all sign, so that a receiver may change from one to the other. `ca_certs`: instead of the machine's own."""

    secrets: Sequence[str] = ()
    allow_private: bool = False
    resolve: Resolve = resolved
    ca_certs: str | None = None
    most_s: float = MOST_S

    def send(self, task: Task, now: float) -> dict[str, Any]:
        """Raises Permanent for an address that webhooks may not go to or that has gone, Retry for any other answer than 2xx, or none."""
        fields = dict(task.fields)
        url = fields.pop(WEBHOOK, None)
        if not isinstance(url, str):
            raise Permanent("a webhook names its address as `webhook`")
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        to = destination(url, allow_private=self.allow_private, resolve=self.resolve)
        headers = {
            "Host": to.authority,
            "Content-Type": "application/json",
            "User-Agent": "fanout-webhook",
            "webhook-id": task.task_id,
            "webhook-timestamp": str(int(now)),
        }
        if self.secrets:
            headers["webhook-signature"] = signatures(self.secrets, task.task_id, int(now), body)
        status = self._status(to, headers, body)
        if 200 <= status < 300:
            return {"status": status}
        if status == GONE:
            raise Permanent(f"{to.host} answered 410: the webhook's address has gone")
        raise Retry(f"{to.host} answered {status}")

    def _status(self, to: Destination, headers: dict[str, str], body: bytes) -> int:
        import urllib3

        timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
        pool = urllib3.HTTPConnectionPool(to.address, to.port, timeout=timeout)
        if to.scheme == "https":
            pool = urllib3.HTTPSConnectionPool(
                to.address,
                to.port,
                timeout=timeout,
                server_hostname=to.host,
                assert_hostname=to.host,
                cert_reqs="CERT_REQUIRED",
                ca_certs=self.ca_certs,
            )
        made: list[Any] = []
        kind = pool.ConnectionCls

        def connection(**options: Any) -> Any:
            made.append(kind(**options))
            return made[-1]

        pool.ConnectionCls = connection  # type: ignore[assignment]
        cut = threading.Timer(self.most_s, _cut, [made])
        cut.daemon = True
        cut.start()
        try:
            with pool:
                answer = pool.urlopen(
                    "POST", to.target, body, headers, retries=False, redirect=False, preload_content=False, assert_same_host=False
                )
                answer.close()  # the status has told; what follows is not read
                return answer.status
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Retry(f"{to.host} could not be told: {type(error).__name__}") from None
        finally:
            cut.cancel()


def _cut(connections: Sequence[Any]) -> None:
    """From another thread than the one that reads, so not by TLS."""
    for one in connections:
        with suppress(OSError):
            if one.sock is not None:
                socket.socket.shutdown(one.sock, socket.SHUT_RDWR)


def signatures(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one for each secret. Raises Retry for a secret that cannot be used."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    found = [base64.b64encode(hmac.new(_key(secret, at), signed, hashlib.sha256).digest()) for at, secret in enumerate(secrets, 1)]
    return " ".join(f"v1,{one.decode()}" for one in found)


def _key(secret: str, at: int) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        if key := base64.b64decode(secret.removeprefix(_PREFIX), validate=True):
            return key
        raise ValueError("anybody knows the empty key")
    except (binascii.Error, ValueError):
        raise Retry(f"secret {at} of WEBHOOK_SECRETS begins with {_PREFIX} and is no base64 after it: mend the setting") from None
