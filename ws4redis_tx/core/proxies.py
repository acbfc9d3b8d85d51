"""Trusted proxies in front of the server, and the headers in which they describe a client."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.handshake import Handshake

UNIX = "unix"
_HEADERS = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")

# The most proxies that one request comes through. More than a thousand addresses fit into a head.
_MOST_PROXIES = 32


class TrustedProxies:
    """Addresses and networks (``10.0.0.0/8``), or ``unix`` for every client of a Unix socket.

    Raises ``ConfigError`` for anything else.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._unix = UNIX in names
        self._networks = [_network(name) for name in names if name != UNIX]

    def see_through(self, handshake: Handshake) -> Handshake:
        """The handshake as the first of these proxies received it.

        ``X-Forwarded-For`` is read from its end, where the nearest proxy wrote: the client is the
        first address that is not one of these proxies. Of ``-Proto`` and ``-Host`` the first value
        counts; no page can make a browser send these headers. If anybody else sends the headers,
        they are removed. Without any configured proxy they stay, and Django judges them.
        """
        if not self._unix and not self._networks:
            return handshake
        headers = dict(handshake.headers)
        forwarded = [headers.pop(name, "") for name in _HEADERS]
        if not self._trusts(handshake.peer):
            return replace(handshake, headers=headers)
        addresses, scheme, host = forwarded
        if host:
            headers["host"] = _first(host)
        return replace(
            handshake,
            headers=headers,
            peer=self._client(addresses, handshake.peer),
            secure=_first(scheme).lower() in ("https", "wss") if scheme else handshake.secure,
        )

    def _trusts(self, peer: str) -> bool:
        if not peer:
            return self._unix
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def _client(self, addresses: str, peer: str) -> str:
        for text in reversed(addresses.rsplit(",", _MOST_PROXIES)[-_MOST_PROXIES:]):
            address = _address(text)
            if address is None:
                break  # the proxy that wrote this is the last known address
            peer = str(address)
            if not self._trusts(peer):
                break
        return peer


@lru_cache(maxsize=1024)
def counted_address(peer: str) -> str:
    """The address under which limits count a client: its IPv4 address, even if IPv6 wraps it, or
    its IPv6 network of 64 bits, all of whose addresses are one customer's.
    """
    address = _address(peer)
    if address is None:
        return peer
    if address.version == 4:
        return str(address)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"


def _network(name: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(str(name))
    except ValueError:
        raise ConfigError(
            "WS4REDIS_TRUSTED_PROXIES",
            f"holds {name!r}, which is not an address, a network or 'unix'",
            "Write, for example, 127.0.0.1, 10.0.0.0/8, or unix for Unix sockets.",
        ) from None


def _first(values: str) -> str:
    return values.partition(",")[0].strip()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Also accepts ``[::1]:123`` and ``192.0.2.1:123``, which some proxies write."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
