"""A bound on what the clients of one address keep persisted in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from twisted.logger import Logger

from ws4redis_tx.core.proxies import counted_address

_log = Logger()

KEY_COST = 1024
"""Bytes that a persisted message costs besides its own and twice its channel's name: more than
Redis takes for the key and for that of its stamp, and this process for remembering them.
"""

TOLD_EVERY = 60.0  # seconds


class _Kept(NamedTuple):
    owner: str
    cost: int
    expires: float


_IN_NO_NAME = b"\xff"  # names are UTF-8


class ClientQuota:
    """Counts what this process has persisted for its clients, by their addresses.

    A message counts until it expires, or until another one is persisted in its place, whoever sent
    that. ``most`` is in bytes for each address; ``None`` or 0 means no bound, and nothing is
    counted.
    """

    def __init__(self, most: int | None, clock: Any) -> None:
        self._most = most
        self._clock = clock
        self._kept: dict[bytes, _Kept] = {}
        self._used: dict[str, int] = {}
        # The number of messages that each channel's history was given.
        self._numbers: dict[bytes, int] = {}
        # Of each message that was counted: its end and its channel. Those that were replaced stay
        # until they are half of all.
        self._ends: list[tuple[float, bytes]] = []
        self._refused = 0
        self._tells_again = 0.0

    def admits(
        self, peer: str, channels: Sequence[bytes], size: int, expire: int, places: int = 1
    ) -> bool:
        """Count a message of ``size`` bytes that a client at ``peer`` publishes on ``channels``.
        Return whether it may be persisted: on all of them, or on none. Each channel has so many
        places, and a message takes that of the oldest one.
        """
        if not self._most:
            return True
        now = self._clock.seconds()
        self._forget_expired(now)
        owner = counted_address(peer)
        names = channels if places == 1 else [self._place(each, places) for each in channels]
        costs = {name: size + 2 * len(name) + KEY_COST for name in names}
        used = self._used.get(owner, 0) + sum(costs.values())
        for channel in costs:
            kept = self._kept.get(channel)
            if kept is not None and kept.owner == owner:
                used -= kept.cost
        if used > self._most:
            self._refuse(peer, now)
            return False
        for channel, cost in costs.items():
            self._forget(channel)
            self._keep(channel, _Kept(owner, cost, now + expire))
        if places > 1:
            self._count(channels)
        return True

    def _place(self, channel: bytes, places: int) -> bytes:
        """The place of a channel's oldest message."""
        return b"%b%b%d" % (channel, _IN_NO_NAME, self._numbers.get(channel, 0) % places)

    def _count(self, channels: Sequence[bytes]) -> None:
        for channel in channels:
            self._numbers[channel] = self._numbers.get(channel, 0) + 1
        if len(self._numbers) > 2 * len(self._kept) + 64:
            used = {place.rpartition(_IN_NO_NAME)[0] for place in self._kept}
            self._numbers = {each: n for each, n in self._numbers.items() if each in used}

    def _keep(self, channel: bytes, kept: _Kept) -> None:
        self._kept[channel] = kept
        self._used[kept.owner] = self._used.get(kept.owner, 0) + kept.cost
        heappush(self._ends, (kept.expires, channel))
        if len(self._ends) > 2 * len(self._kept) + 64:
            self._ends = [(each.expires, channel) for channel, each in self._kept.items()]
            heapify(self._ends)

    def _forget(self, channel: bytes) -> None:
        kept = self._kept.pop(channel, None)
        if kept is not None:
            left = self._used.pop(kept.owner) - kept.cost
            if left:
                self._used[kept.owner] = left

    def _forget_expired(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            expires, channel = heappop(self._ends)
            kept = self._kept.get(channel)
            if kept is not None and kept.expires == expires:
                self._forget(channel)

    def _refuse(self, peer: str, now: float) -> None:
        self._refused += 1
        if now >= self._tells_again:
            self._tells_again = now + TOLD_EVERY
            number, self._refused = self._refused, 0
            _log.warn(
                "{number} messages of clients were published but not persisted, or refused where a "
                "history is kept, because their address ({peer}) has persisted as much as "
                "WS4REDIS_CLIENT_QUOTA (--client-quota) allows. If that is a proxy's, name it in "
                "WS4REDIS_TRUSTED_PROXIES (--trusted-proxy)",
                number=number,
                peer=peer or "a Unix socket",
            )
