"""Handshakes in little memory: each open websocket keeps its own, to ask the authorizer again.

Handshakes of the same browser and page differ in a few values; the rest is kept once. A packed
handshake takes 0.4 KB, a copy 2.5. Compression would save as much, and take five times as long.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, TypeVar

from ws4redis_tx.core.handshake import Handshake

# Credentials, and values that differ for each visitor: not remembered here.
_OWN = frozenset({"authorization", "cookie", "sec-websocket-key", "sec-websocket-protocol"})

# How many values are remembered, and how long each may be: 4 MB, if somebody tries.
_MOST_REMEMBERED, _LONGEST = 2048, 2048

Packed = tuple[tuple[Any, ...], tuple[str, ...], str]

Value = TypeVar("Value", str, tuple[Any, ...])


class Packer:
    """Remembers what handshakes have in common, up to a bound; then it starts over."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def pack(self, handshake: Handshake) -> Packed:
        """All of a handshake, for ``unpack``."""
        headers = handshake.headers
        common = (
            handshake.path,
            handshake.query,
            handshake.websocket_url,
            handshake.flags,
            tuple(headers),
            tuple([None if name in _OWN else value for name, value in headers.items()]),
            handshake.secure,
            handshake.events,
            len(handshake.subprotocols),
        )
        own = (
            handshake.key,
            *handshake.subprotocols,
            *[value for name, value in headers.items() if name in _OWN],
        )
        if handshake.redeemed or handshake.credential:
            own += (handshake.redeemed, handshake.credential)
        return self._known.get(common) or self._learn(common), own, self._same(handshake.peer)

    def _learn(self, common: tuple[Any, ...]) -> tuple[Any, ...]:
        """Remember the parts as well: one unusual header must not have all others kept again."""
        *parts, values, secure, events, offered = common
        values = tuple([value and self._same(value) for value in values])
        common = (*[self._same(part) for part in parts], values, secure, events, offered)
        if sum(map(_length, (*parts, values))) <= _LONGEST:
            self._remember(common)
        return common

    def _same(self, value: Value) -> Value:
        """Intern ``value``."""
        known: Value | None = self._known.get(value)
        if known is not None:
            return known
        if _length(value) <= _LONGEST // 4:
            self._remember(value)
        return value

    def _remember(self, value: Any) -> None:
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[value] = value

    def __len__(self) -> int:
        """How much is remembered."""
        return len(self._known)


def unpack(packed: Packed) -> Handshake:
    common, (key, *own), peer = packed
    path, query, websocket_url, flags, names, values, secure, events, offered = common
    left = iter(own)
    subprotocols = tuple(islice(left, offered))
    headers = {
        name: next(left) if value is None else value
        for name, value in zip(names, values, strict=True)
    }
    redeemed, credential = next(left, ""), next(left, "")
    return Handshake(
        path, query, websocket_url, flags, headers, key, subprotocols, secure, peer, redeemed,
        credential, events=events,
    )  # fmt: skip


def _length(value: str | tuple[Any, ...] | None) -> int:
    if isinstance(value, tuple):
        return sum(map(_length, value))
    return len(value) if value else 0
