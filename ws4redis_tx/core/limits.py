"""Limits on one peer's share of the server."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

CLOSE, DROP_OLDEST, LATEST = "close", "drop_oldest", "latest"
SLOW_READER_POLICIES = (CLOSE, DROP_OLDEST, LATEST)
"""The possible reactions when too many messages are waiting for a client."""

BURST = 10.0
"""Seconds' worth of messages that a client may send at once after it was quiet."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A client's average limit, in messages and in bytes (``size``) per second. Each fragment, ping
    and pong counts as a message. A compressed message counts with its bytes on the wire and its
    inflated bytes.
    """

    messages: float
    size: float


def make_rate(pair: tuple[float, float] | None) -> Rate | None:
    """A ``Rate`` from messages and bytes per second; ``None`` means no limit."""
    return None if pair is None else Rate(*pair)


class Allowance:
    """A token bucket for one client, for messages and bytes."""

    __slots__ = ("_at", "_messages", "_rate", "_size")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._at = now
        self._messages = rate.messages * BURST
        self._size = rate.size * BURST

    def take(self, now: float, *, messages: int = 0, size: int = 0) -> bool:
        """Use up that much; return whether it was available."""
        rate, passed = self._rate, max(0.0, now - self._at)  # a clock may be set back
        self._at = now
        self._messages = min(self._messages + passed * rate.messages, rate.messages * BURST)
        self._size = min(self._size + passed * rate.size, rate.size * BURST)
        self._messages -= messages
        self._size -= size
        return self._messages >= 0 and self._size >= 0


class Quota:
    """Hands out at most ``most`` places for each key; ``None`` means any number."""

    def __init__(self, most: int | None) -> None:
        self.unlimited = most is None
        self._most = most
        self._taken: dict[Hashable, int] = {}

    def take(self, key: Hashable) -> bool:
        """Take a place for ``key``; return whether one was free. Give it back exactly once."""
        if self._most is None:
            return True
        taken = self._taken.get(key, 0)
        if taken >= self._most:
            return False
        self._taken[key] = taken + 1
        return True

    def give_back(self, key: Hashable) -> None:
        if self._most is None:
            return
        left = self._taken[key] - 1
        if left:
            self._taken[key] = left
        else:
            del self._taken[key]

    def __len__(self) -> int:
        """The number of keys that hold a place."""
        return len(self._taken)
