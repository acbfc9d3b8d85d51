"""Which messages have arrived, as far as is needed to recognise one that has not.

Pub/sub keeps nothing, but the last message of each channel is persisted, with a stamp of Redis'
own clock. A probe that Redis publishes to ourselves carries that clock too, and comes back in
order with all other messages: every message with an earlier stamp has arrived by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from ws4redis_tx.redis.persisted import RedisClock

# Bytes. A longer message is remembered by its SHA-1: Redis can compare that before it sends the
# message. A shorter one is sent sooner than it is compared.
_SHORT = 1024

_NEVER = RedisClock(0)


class _Heard(NamedTuple):
    """How far a channel was heard: until the last probe, and the digests of what came after it."""

    proven: RedisClock
    recent: set[int]


class Arrivals:
    """The messages that have arrived, as far as is needed to recognise one that has not.

    Messages are remembered by their digest, from one probe to the next.
    """

    def __init__(self) -> None:
        self._proven = _NEVER
        self._clock = _NEVER  # that of the stamps which are judged
        self.recent: set[int] = set()
        """Digests of those that have arrived since the last probe."""
        # The last message of each channel: its digest, or the SHA-1 of a long one.
        self._last: dict[bytes, int | bytes] = {}
        self._behind: dict[bytes, _Heard] = {}

    def note(self, channel: bytes, payload: bytes) -> None:
        """This message has arrived."""
        if len(payload) > _SHORT:
            last = self._last[channel] = hashlib.sha1(payload).digest()
            self.recent.add(hash((channel, last)))
        else:
            self._last[channel] = digest = hash((channel, payload))
            self.recent.add(digest)

    def note_read(self, channel: bytes, payload: bytes) -> None:
        """This message was read from its key, and everybody who listened when it was published
        has it: a fence says so.
        """
        last = _last(channel, payload)
        self.recent.add(_digest(channel, last))
        # A message that arrived over pub/sub is newer.
        self._last.setdefault(channel, last)

    def prove(self, moment: RedisClock) -> None:
        """Every message with a stamp up to ``moment`` has arrived, except on channels that are
        behind.
        """
        self._proven = moment
        self.forget_recent()

    def forget_recent(self) -> None:
        """Forget what a probe would prove, where no probe is permitted."""
        self.recent = set()

    def forget(self, channel: bytes) -> None:
        """Nobody listens to ``channel`` any more."""
        self._last.pop(channel, None)
        self._behind.pop(channel, None)

    def fall_behind(self, channels: Iterable[bytes]) -> None:
        """Of these channels nothing is proven until they have caught up."""
        for channel in channels:
            self._behind.setdefault(channel, _Heard(self._proven, self.recent))

    def catch_up(self, channels: Iterable[bytes]) -> None:
        for channel in channels:
            self._behind.pop(channel, None)

    def read_clock(self, clock: RedisClock) -> None:
        """The stamps that are asked about from now on are of this clock."""
        self._clock = clock

    def missed(self, channel: bytes, payload: bytes, stamp: int | None) -> bool:
        """Whether the persisted message was published while we could not hear it.

        One without a stamp, from a publisher that sets none, counts as heard if its bytes are
        those of the last one on its channel. So does one whose stamp is of another clock than the
        last probe: of a Redis that has been replaced since, or whose clock was set back.
        """
        return self._missed(channel, _last(channel, payload), stamp)

    def may_be_missed(self, channel: bytes, stamp: int | None) -> bool:
        """Whether it takes the message itself to answer that."""
        return self._later(self._heard(channel), stamp) is not False

    def known_sha1(self, channel: bytes, stamp: int | None) -> str:
        """The SHA-1 of a message that would not count as missed, if one is known, or ``""``."""
        last = self._last.get(channel)
        if not isinstance(last, bytes) or self._missed(channel, last, stamp):
            return ""
        return last.hex()

    def _heard(self, channel: bytes) -> _Heard:
        return self._behind.get(channel) or _Heard(self._proven, self.recent)

    def _missed(self, channel: bytes, last: int | bytes, stamp: int | None) -> bool:
        heard = self._heard(channel)
        if _digest(channel, last) in heard.recent:
            return False
        later = self._later(heard, stamp)
        return last != self._last.get(channel) if later is None else later

    def _later(self, heard: _Heard, stamp: int | None) -> bool | None:
        """Whether it is later than the last probe; ``None`` if the two cannot be compared."""
        clock, proven = self._clock, heard.proven
        if stamp is None or clock.server != proven.server or clock.now < max(proven.now, stamp):
            return None  # in the future: of a server that was here before
        return stamp > proven.now


def _last(channel: bytes, payload: bytes) -> int | bytes:
    long = len(payload) > _SHORT
    return hashlib.sha1(payload).digest() if long else hash((channel, payload))


def _digest(channel: bytes, last: int | bytes) -> int:
    return hash((channel, last)) if isinstance(last, bytes) else last


class Reads:
    """Messages that were read from their keys, and are not known to have reached all who listened
    then. Those that no fence confirms while two probes come back are forgotten.
    """

    def __init__(self) -> None:
        self._recent: list[tuple[bytes, bytes]] = []
        self._earlier: list[tuple[bytes, bytes]] = []

    def add(self, channel: bytes, payload: bytes) -> None:
        self._recent.append((channel, payload))

    def take(self) -> list[tuple[bytes, bytes]]:
        """The messages that were read so far, for the fence that is sent next."""
        read = self._earlier + self._recent
        self.forget()
        return read

    def forget(self) -> None:
        self._recent, self._earlier = [], []

    def age(self) -> None:
        """A probe is back."""
        self._earlier, self._recent = self._recent, []
