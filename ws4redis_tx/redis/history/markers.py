"""The markers that are published with messages, and the positions that they give."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping

from twisted.internet.interfaces import IDelayedCall

from ws4redis_tx.core.messages import PositionedPublication, Publication
from ws4redis_tx.core.names import facility_of, read_stamp, side_channel
from ws4redis_tx.core.positions import HistoryRules, Position, history_of

MARK_DELAY = 0.5
"""Seconds after a message without a position until a position after it is asked for. The contract
allows one until clients are told.
"""


class Markers:
    """Pairs each message with the marker before it, and knows the position of all that has arrived.

    A publisher sends both in one step, so a message follows its marker directly.

    :param ask_for_position: asks a little later for a stamp that ``advance_to`` is to be told.
    """

    def __init__(
        self, prefix: str, rules: HistoryRules, ask_for_position: Callable[[], IDelayedCall]
    ) -> None:
        self._prefix = prefix
        self._ask_for_position = ask_for_position
        # Channels whose last message had no marker, and the timer of the position after it.
        self._unmarked: set[bytes] = set()
        self._asking: IDelayedCall | None = None
        self._rules = rules
        self._channels: dict[bytes, bytes] = {}
        self.sides: Mapping[bytes, bytes] = self._channels
        """By the channel of markers, the channel that they are about."""
        self._next: dict[bytes, int] = {}  # of the messages that come next
        self.read: Mapping[tuple[bytes, bytes], int] = {}
        """While messages are handed over that were read from their keys: the stamps of those."""
        self.position: Position | None = None
        """The highest position of all that has arrived; ``None`` until one is known."""
        self.heard = 0
        """The highest stamp of a message of this data set that has arrived; 0 for none."""

    def side_of(self, channel: bytes) -> bytes | None:
        """The channel of its markers, if it has a history."""
        if not self._rules:
            return None
        facility = facility_of(self._prefix, channel)
        if facility is None or history_of(self._rules, facility) is None:
            return None
        return side_channel(self._prefix, channel)

    def listen(self, channel: bytes, side: bytes) -> None:
        self._channels[side] = channel

    def forget(self, channel: bytes, side: bytes) -> None:
        self._channels.pop(side, None)
        self._next.pop(channel, None)

    def drop(self) -> None:
        """The connection is lost: what comes next follows no marker of it."""
        self._next.clear()
        self._unmarked.clear()
        self._stop_asking()

    def take(self, channel: bytes, payload: bytes) -> None:
        """Take a marker, or a message that is nobody's."""
        about = self._channels.get(channel)
        if about is None:
            self._next.pop(channel, None)
            return
        stamp = _stamp_in(payload)
        if stamp is not None:
            self._next[about] = stamp
            self.heard = max(self.heard, stamp)

    def later(
        self, messages: Iterable[tuple[bytes, bytes]], channels: Container[bytes], until: int
    ) -> list[tuple[bytes, bytes]]:
        """Those messages and markers that ``channels`` have not published up to this stamp."""
        kept: list[tuple[bytes, bytes]] = []
        earlier: set[bytes] = set()
        for channel, payload in messages:
            about = self._channels.get(channel)
            stamp = _stamp_in(payload) if about in channels else None
            if about is not None and stamp is not None and stamp <= until:
                earlier.add(about)
            elif channel in earlier:
                earlier.discard(channel)
            else:
                kept.append((channel, payload))
        return kept

    def publication(self, channel: bytes, payload: bytes, sender: object) -> Publication:
        """The publication of a message that has arrived."""
        position = self.position
        if position is None:
            return Publication(channel, payload, sender)
        stamp = self._next.pop(channel, None)
        if stamp is None:
            self._unmarked.add(channel)
            if self._asking is None or not self._asking.active():
                self._asking = self._ask_for_position()
            read = self.read.get((channel, payload))
            if read is not None:  # it says nothing of other messages
                read_at = Position(read, position.mark)
                return PositionedPublication(channel, payload, read_at, sender=sender)
            return PositionedPublication(channel, payload, position, sender=sender, marked=False)
        position = Position(stamp, position.mark)
        self.advance(position)
        return PositionedPublication(channel, payload, position, sender=sender)

    def advance(self, position: Position) -> None:
        """Everything up to ``position`` has arrived. Another data set's replaces this one's."""
        mine = self.position
        if mine is None or mine.mark != position.mark:
            self.position, self.heard = position, 0
        elif mine.stamp < position.stamp:
            self.position = position

    def is_beyond(self, stamp: int) -> bool:
        """Whether something later than ``stamp`` has arrived."""
        return self.position is not None and self.position.stamp > stamp

    def advance_to(self, stamp: int) -> Collection[bytes]:
        """The same for a stamp of the data set that is known, if one is. Return the channels on
        which a message without a position has come before.
        """
        if self.position is None:
            return ()
        self.advance(Position(stamp, self.position.mark))
        unmarked, self._unmarked = self._unmarked, set()
        self._stop_asking()
        return unmarked

    def _stop_asking(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None and asking.active():
            asking.cancel()


def _stamp_in(marker: bytes) -> int | None:
    return read_stamp(marker.partition(b" ")[0])
