"""The keys of a Redis in memory: the last message of each channel, and whether it was missed."""

from __future__ import annotations

import math
from collections.abc import Callable


class KeyStore:
    """Persisted messages, until they expire.

    :param seconds: the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._messages: dict[bytes, bytes] = {}
        self._seconds = seconds
        self._ends: dict[bytes, float] = {}
        self._missed: dict[bytes, None] = {}

    @property
    def messages(self) -> dict[bytes, bytes]:
        for channel in list(self._messages):
            self.read(channel)
        return self._messages

    def keep(self, channel: bytes, message: bytes, expire: int) -> None:
        self._ends[channel] = self._seconds() + expire
        self._messages[channel] = message

    def read(self, channel: bytes) -> bytes | None:
        if self._ends.get(channel, math.inf) <= self._seconds():
            self._messages.pop(channel, None)
        return self._messages.get(channel)

    def miss(self, channel: bytes) -> None:
        """The persisted message did not reach the listeners; ``take_missed`` returns it."""
        self._missed.pop(channel, None)
        self._missed[channel] = None

    def take_missed(self) -> list[tuple[bytes, bytes]]:
        """Channels and their last messages, in the order in which these were missed."""
        missed, self._missed = self._missed, {}
        found = [(channel, self.read(channel)) for channel in missed]
        return [(channel, message) for channel, message in found if message is not None]
