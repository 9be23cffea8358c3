"""Where a webhook may go: an https address whose every IP address is public, as it is resolved at the moment of the connection."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from batch.model.errors import Permanent, Retry

Resolve = Callable[[str, int], Sequence[str]]
"""The IP addresses of a host. Raises OSError."""
_ROUTED_V6 = ipaddress.ip_network("2000::/3")
"""Outside of it lie the private ones, and those that hold an IPv4 address: mapped, NAT64."""
_TUNNELS = (ipaddress.ip_network("2002::/16"), ipaddress.ip_network("2001::/32"), ipaddress.ip_network("192.88.99.0/24"))
"""6to4 and Teredo: an IPv4 address is hidden in these."""


class Destination(NamedTuple):
    """`address` is what is connected to; `host` is whom the certificate must name; `target` is path and query."""

    scheme: str
    host: str
    port: int
    address: str
    target: str

    @property
    def authority(self) -> str:
        """The header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


def resolved(host: str, port: int) -> Sequence[str]:
    """As the machine resolves names."""
    return [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def destination(url: str, *, allow_private: bool, resolve: Resolve = resolved) -> Destination:
    """Where a webhook's connection goes. Raises Permanent for an address that webhooks may not go to, Retry for a host that cannot be
    resolved now. No error shows path or query: they may hold a secret."""
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    try:
        parsed = parse_url(url)
    except LocationParseError:
        raise Permanent("the webhook's address is no URL") from None
    scheme, host = parsed.scheme or "", (parsed.host or "").strip("[]")
    if parsed.auth is not None or not host or "%" in host or scheme not in (("https", "http") if allow_private else ("https",)):
        raise Permanent("a webhook's address is https://<host>/…, without user or password")
    port = parsed.port or (443 if scheme == "https" else 80)
    try:
        addresses = resolve(host, port)
    except (OSError, UnicodeError):
        raise Retry(f"the webhook's host {host} cannot be resolved") from None
    if not addresses:
        raise Retry(f"the webhook's host {host} has no address")
    if not allow_private and not all(map(is_public, addresses)):
        raise Permanent(f"the webhook's host {host} has an address that is not public: webhooks go to public ones only")
    if scheme == "http" and not all(ipaddress.ip_address(one).is_loopback for one in addresses):
        raise Permanent(f"the webhook's host {host} is not this machine: use https")
    return Destination(scheme, host, port, addresses[0], parsed.request_uri)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found not in _ROUTED_V6:
        return False
    tunnel = any(found in network for network in _TUNNELS if network.version == found.version)
    return found.is_global and not (found.is_multicast or found.is_reserved or tunnel)
