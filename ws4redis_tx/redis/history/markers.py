"""The markers that are published with messages, and the positions that they give."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall

from ws4redis_tx.core.messages import Arrival, PositionedPublication, Publication
from ws4redis_tx.core.names import about, facility_of, read_stamp, side_channel
from ws4redis_tx.core.positions import HistoryRules, Position, history_of

MARK_DELAY = 0.5
"""Seconds after a message without a position until a position after it is asked for. The contract
allows one until clients are told.
"""


class Marker(NamedTuple):
    """``stamp number began info``: of a message, its place among those of its channel, and the
    client that published it. All but ``info`` are 0 where there is no history.
    """

    stamp: int
    number: int = 0
    began: int = 0
    info: bytes = b""


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
        self._next: dict[bytes, Marker] = {}  # of the messages that come next
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

    def about(self, side: bytes) -> bytes | None:
        """The channel that ``side`` has the markers of; ``None`` for any other."""
        return about(self._prefix, side)

    def unlisten(self, channel: bytes, listened_to: Container[bytes]) -> list[bytes]:
        """Nobody listens to ``channel`` any more. Return what need not be subscribed any more."""
        main = about(self._prefix, channel)
        if main is not None:  # its markers may be needed all the same
            if main in listened_to and self.side_of(main) is not None:
                return []
            self._forget(main, channel)
            return [channel]
        side = self.side_of(channel)
        if side is None or side in listened_to:
            return [channel]
        self._forget(channel, side)
        return [channel, side]

    def _forget(self, channel: bytes, side: bytes) -> None:
        self._channels.pop(side, None)
        self._next.pop(channel, None)

    def drop(self) -> None:
        """The connection is lost: what comes next follows no marker of it."""
        self._next.clear()
        self._unmarked.clear()
        self._stop_asking()

    def take(self, channel: bytes, payload: bytes) -> Arrival | None:
        """Take a marker, or a message that is nobody's. Return a client's coming or going."""
        main = self._channels.get(channel)
        if main is None:
            self._next.pop(channel, None)
            return None
        event, _, info = payload.partition(b" ")
        if event in (b"join", b"leave"):
            return Arrival(channel, event.decode(), info)
        marker = _read_marker(payload)
        if marker is not None:
            self._next[main] = marker
            self.heard = max(self.heard, marker.stamp)
        return None

    def later(
        self, messages: Iterable[tuple[bytes, bytes]], channels: Container[bytes], until: int
    ) -> list[tuple[bytes, bytes]]:
        """Those messages and markers that ``channels`` have not published up to this stamp."""
        kept: list[tuple[bytes, bytes]] = []
        earlier: set[bytes] = set()
        for channel, payload in messages:
            main = self._channels.get(channel)
            stamp = _stamp_in(payload) if main in channels else None
            if main is not None and stamp is not None and stamp <= until:
                earlier.add(main)
            elif channel in earlier:
                earlier.discard(channel)
            else:
                kept.append((channel, payload))
        return kept

    def publication(self, channel: bytes, payload: bytes, sender: object) -> Publication:
        """The publication of a message that has arrived."""
        position, marker = self.position, self._next.pop(channel, _NO_MARKER)
        stamp: int | None
        publication: Publication
        if position is None:
            publication = Publication(channel, payload, sender)
            publication.info = marker.info
            return publication
        if not marker.stamp:
            self._unmarked.add(channel)
            if self._asking is None or not self._asking.active():
                self._asking = self._ask_for_position()
            stamp = self.read.get((channel, payload))
            known = stamp is not None
            if stamp is not None:  # it says nothing of other messages
                position = Position(stamp, position.mark)
            publication = PositionedPublication(
                channel, payload, position, sender=sender, marked=known
            )
            publication.info = marker.info
            return publication
        position = Position(marker.stamp, position.mark)
        self.advance(position)
        publication = PositionedPublication(
            channel,
            payload,
            position,
            sender=sender,
            offset=marker.number,
            began=marker.began,
        )
        publication.info = marker.info
        return publication

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


_NO_MARKER = Marker(0)


def _read_marker(payload: bytes) -> Marker | None:
    stamp, *others = payload.split(b" ", 3)
    numbers = [read_stamp(each.removeprefix(b"-")) for each in (stamp, *others[:2])]
    if None in numbers:
        return None
    return Marker(*[each or 0 for each in numbers], *others[2:])  # type: ignore[arg-type]


def _stamp_in(marker: bytes) -> int | None:
    return read_stamp(marker.partition(b" ")[0])
