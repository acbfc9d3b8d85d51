"""The keys of a Redis in memory: each channel's last message and whether it was missed, and who is
present.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Announced, Occupant
from ws4redis_tx.core.names import audience_of, side_channel, split_tenant


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


class _Kept(NamedTuple):
    server: str
    occupant: Occupant


class PresenceStore:
    """An ``IPresence`` in memory. Keeps the clients of all servers that share ``broker``."""

    def __init__(self, broker: Any) -> None:
        self.prefix = ""
        self._broker = broker
        self._kept: dict[tuple[bytes, str], _Kept] = {}
        self._alive: dict[str, float] = {}  # the time until which each server counts as alive

    def clear(self) -> None:
        """Lose everything."""
        self._kept.clear()
        self._alive.clear()

    @property
    def _now(self) -> float:
        return 0.0 if self._broker.clock is None else float(self._broker.clock.seconds())

    def announce(
        self, server: str, lasting: float, occupants: Sequence[Occupant]
    ) -> Deferred[Announced]:
        if not self._broker.available:
            return _unavailable()
        known = len(self._of(server))
        for each in occupants:
            joins = each[:2] not in self._kept
            self._kept[each[:2]] = _Kept(server, each)
            if joins:
                self._publish(each, b"join ")
        self._alive[server] = self._now + lasting
        dead = [each for each, until in self._alive.items() if until <= self._now]
        return self._answer(Announced(known, dead))

    def withdraw(
        self, server: str, occupants: Sequence[Occupant], *, dead: bool = False
    ) -> Deferred[int]:
        if not self._broker.available:
            return _unavailable()
        if dead and self._lives(server):
            return self._answer(0)
        for each in occupants:
            kept = self._kept.get(each[:2])
            if kept is not None and (kept.server == server or not dead):
                del self._kept[each[:2]]
                self._publish(kept.occupant, b"leave ")
        left = len(self._of(server))
        if dead and not left:
            self._alive.pop(server, None)
        return self._answer(left)

    def left_behind(self, server: str) -> Deferred[list[Occupant]]:
        return self._answer(self._of(server)[:100])

    def present(self, channel: bytes, infos: bool = True) -> Deferred[list[Occupant]]:
        return self._answer([each for each in self._present() if each.channel == channel])

    def is_online(self, tenant: str, user: str) -> Deferred[bool]:
        theirs = [each for each in self._present() if each.user == user]
        return self._answer(bool(user) and tenant in map(self._tenant, theirs))

    def _tenant(self, occupant: Occupant) -> str:
        return split_tenant(self.prefix, occupant.channel.decode(errors="surrogateescape"))[0]

    def _of(self, server: str) -> list[Occupant]:
        return [each.occupant for each in self._kept.values() if each.server == server]

    def _present(self) -> list[Occupant]:
        return [each.occupant for each in self._kept.values() if self._lives(each.server)]

    def _lives(self, server: str) -> bool:
        return self._alive.get(server, -math.inf) > self._now

    def _publish(self, occupant: Occupant, event: bytes) -> None:
        if audience_of(occupant.channel) != "user":
            side = side_channel(self.prefix, occupant.channel)
            self._broker.publish_elsewhere([side], event + occupant.info)

    def _answer(self, result: Any) -> Deferred[Any]:
        """Fire behind all that was published before."""
        answer: Deferred[Any] = self._broker.fence()
        return answer.addCallback(lambda _: result)


def _unavailable() -> Deferred[Any]:
    text = "The MemoryBroker is unavailable until the test calls restore()."
    return fail(BrokerUnavailable(text))
