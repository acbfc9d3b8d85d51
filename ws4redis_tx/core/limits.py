"""How much of the server one peer may take."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

CLOSE, DROP_OLDEST, LATEST = "close", "drop_oldest", "latest"
SLOW_READER_POLICIES = (CLOSE, DROP_OLDEST, LATEST)
"""What happens when more messages would wait for a client than may."""

BURST = 10.0
"""Seconds for which a client that was quiet may send all at once."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a client may send, on average: messages a second, each fragment, ping and pong counted
    as one, and bytes a second, as they come and, if they were compressed, as they are.
    """

    messages: float
    size: float


def make_rate(pair: tuple[float, float] | None) -> Rate | None:
    """From messages and bytes a second; ``None``: no limit."""
    return None if pair is None else Rate(*pair)


class Allowance:
    """What one client may still send, at a rate."""

    __slots__ = ("_at", "_messages", "_rate", "_size")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._at = now
        self._messages = rate.messages * BURST
        self._size = rate.size * BURST

    def take(self, now: float, *, messages: int = 0, size: int = 0) -> bool:
        """Use it up by that much; return whether it was enough."""
        rate, passed = self._rate, max(0.0, now - self._at)  # clocks are set back at times
        self._at = now
        self._messages = min(self._messages + passed * rate.messages, rate.messages * BURST)
        self._size = min(self._size + passed * rate.size, rate.size * BURST)
        self._messages -= messages
        self._size -= size
        return self._messages >= 0 and self._size >= 0


class Quota:
    """How many each key may have of something, at most ``most``; ``None``: any number."""

    def __init__(self, most: int | None) -> None:
        self.unlimited = most is None
        self._most = most
        self._taken: dict[Hashable, int] = {}

    def take(self, key: Hashable) -> bool:
        """Take one for ``key``; return whether there was one left. Give it back once."""
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
        """How many keys have any."""
        return len(self._taken)
