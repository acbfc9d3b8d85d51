"""The keys of a Redis in memory: each channel's last message, and whether it was missed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable


class KeyStore:
    """Keeps persisted messages until they expire.

    :param seconds: returns the current time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._messages: dict[bytes, bytes] = {}
        self._seconds = seconds
        self._expiries: dict[bytes, float] = {}
        self._missed: dict[bytes, None] = {}
        self.stamps: dict[bytes, int] = {}
        """The stamp of each channel's last persisted message."""

    @property
    def messages(self) -> dict[bytes, bytes]:
        for channel in list(self._messages):
            self.read(channel)
        return self._messages

    def keep(self, channel: bytes, message: bytes, expire: int, stamp: int) -> None:
        self.stamps[channel] = stamp
        self._expiries[channel] = self._seconds() + expire
        self._messages[channel] = message

    def read(self, channel: bytes) -> bytes | None:
        if self._expiries.get(channel, math.inf) <= self._seconds():
            self._messages.pop(channel, None)
        return self._messages.get(channel)

    def forget(self, channel: bytes) -> None:
        self._messages.pop(channel, None)

    def stamped(self, channels: Iterable[bytes]) -> dict[bytes, tuple[bytes, int]]:
        """The persisted messages of those channels that have one, and their stamps."""
        found = {channel: self.read(channel) for channel in channels}
        return {
            channel: (message, self.stamps[channel])
            for channel, message in found.items()
            if message is not None
        }

    def miss(self, channel: bytes) -> None:
        """Note that a persisted message did not reach the listeners, for ``take_missed``."""
        self._missed.pop(channel, None)
        self._missed[channel] = None

    def take_missed(self) -> list[tuple[bytes, bytes]]:
        """Return the missed messages with their channels, in the order of being missed."""
        missed, self._missed = self._missed, {}
        found = [(channel, self.read(channel)) for channel in missed]
        return [(channel, message) for channel, message in found if message is not None]
