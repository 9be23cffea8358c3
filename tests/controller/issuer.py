"""An issuer of OIDC tokens for tests: its own key, and its certificates served on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

AUDIENCE = "https://controller.example"
EMAIL = "scheduler@p.iam.gserviceaccount.com"
ISSUER = "https://accounts.google.com"


class Key:
    """A private key and its certificate."""

    def __init__(self, key_id: str) -> None:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, key_id)])
        now = datetime.now(UTC)
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        built = built.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        self.key_id = key_id
        self.certificate = built.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        self._signer: Any = crypt.RSASigner.from_string(pem.decode(), key_id)

    def token(self, **changes: Any) -> str:
        """A token that is right, but for `changes`; None leaves a claim out."""
        now = int(datetime.now(UTC).timestamp())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "email": EMAIL, "email_verified": True, "iat": now, "exp": now + 3600, **changes}
        return str(jwt.encode(self._signer, {key: value for key, value in claims.items() if value is not None}).decode())


@cache
def key(key_id: str = "first") -> Key:
    """Keys take time to make: one of each name for all tests."""
    return Key(key_id)


class CertsServer:
    """Serves certificates. `keys` are those it knows, `status` what it answers with; `request_count` counts."""

    def __init__(self, *keys: Key) -> None:
        self.keys = list(keys)
        self.status = 200
        self.request_count = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.request_count += 1
                body = json.dumps({one.key_id: one.certificate for one in outer.keys}).encode()
                self.send_response(outer.status)
                self.send_header("Cache-Control", "public, max-age=600")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/certs"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def certs_server(*keys: Key) -> Iterator[CertsServer]:
    server = CertsServer(*keys)
    try:
        yield server
    finally:
        server.stop()
