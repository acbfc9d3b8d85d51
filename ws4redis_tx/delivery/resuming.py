"""The feed of a client that keeps its position, and resumes from it after a gap in its hearing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from operator import attrgetter

from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.core.messages import (
    Joined,
    Notice,
    PositionedPublication,
    Publication,
)
from ws4redis_tx.core.positions import IHistory, Missed, Position
from ws4redis_tx.delivery.direct import CAREFUL, CHANGES
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.delivery.outbox import Outbox
from ws4redis_tx.delivery.queues import MESSAGE_COST, Entry


class Holes:
    """The messages that were dropped from an outbox since the client was told last."""

    __slots__ = ("_before", "_channels", "_outbox")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._channels: set[bytes] = set()
        # A position of a client that has everything before them.
        self._before: Position | None = None

    def note(self, entry: Entry) -> None:
        if entry[0]:  # else it was the application's own, and nothing that can be missed
            self._channels.add(entry[0])
            self._go_before(entry)

    def take(self, following: Entry | None) -> bytes:
        if not self._channels:
            return b""
        if following is not None:
            self._go_before(following)
        gap = Notice(self._before or Position(0, 0), frozenset(self._channels))
        self._channels, self._before = set(), None
        told: bytes = self._outbox.codec.notify(gap)
        return told

    def _go_before(self, entry: Entry) -> None:
        before = entry[2] if len(entry) > 2 else None
        if before is not None and (self._before is None or before < self._before):
            self._before = before


class ResumingFeed(Feed):
    """A ``Feed`` that catches up from a position, at its beginning and after each outage.

    It is sent positions: with each message the message's own, or that of an earlier one.
    """

    __slots__ = ("_early", "_held", "_held_bytes", "_history", "_lost", "_opening", "since")

    def __init__(self, outbox: Outbox, history: IHistory) -> None:
        super().__init__(outbox)
        outbox.holes = Holes(outbox)
        self._history = history
        self.since: Position | None = None
        """The position up to which the client has everything, while it catches up."""
        self._opening = True  # it has not caught up for the first time
        # The messages that an application has sent until then.
        self._early: list[bytes] = []
        # Live messages that arrive meanwhile.
        self._held: deque[Publication] = deque()
        self._held_bytes = 0
        # The channels of those that were dropped, each with the position of the last one; ``None``:
        # one had no position.
        self._lost: dict[bytes, Position | None] = {}

    def deliver(self, publication: Publication | Joined) -> None:
        if publication.sender is self:
            if self._live and isinstance(publication, Publication) and publication.position:
                self.mark(publication.position)
        elif self._live:
            super().deliver(publication)
        else:
            for each in publication.parts:
                self._hold(each)

    def mark(self, position: Position | None) -> None:
        """Tell the client that it has everything up to ``position``."""
        if self._live and position is not None:
            self._outbox.write_control(self._outbox.codec.notify(Notice(position)))

    def mark_now(self) -> None:
        """Tell the client how far everything has arrived, when it is its turn."""
        self._history.when_handed_over(lambda: self.mark(self._history.position))

    def send(self, payload: bytes) -> None:
        """Take a message of the application's own, or one that it read from a channel's key. The
        first catching up sends it before all others, and later it goes out in its turn.
        """
        if self._outbox.closed:
            return
        if self._opening:
            self._early.append(payload)
            self._outbox.grew(len(payload))
        else:
            self._history.when_handed_over(partial(self._send, payload))

    def _send(self, payload: bytes) -> None:
        position = self._history.position or self.since
        if position is not None and not self._outbox.closed:
            self.deliver(PositionedPublication(None, payload, position, marked=False))

    def restart(self) -> None:
        self._early.clear()

    def fall_back(self, since: Position | None) -> None:
        """Hold what arrives, until the feed has caught up from ``since``."""
        if self._live:
            self.since = since
            self._live = False
            if self.direct is not CAREFUL:
                self.direct = CAREFUL
                CHANGES.number += 1

    def catch_up(self, first: bytes, missed: Missed, last: bytes) -> None:
        """Send ``first``, what ``send`` was given, all that was ``missed``, and ``last``; then what
        has arrived meanwhile and is later; and go live.
        """
        if not self.replaying:
            return
        outbox, codec, until = self._outbox, self._outbox.codec, missed.until
        held, self._held, self._held_bytes = self._held, deque(), 0
        # A persisted message may have arrived, too, without a marker. If its position is known,
        # that is its place.
        unmarked = {(each.channel, each.payload): each for each in held if not each.marked}
        together = [*missed.messages]
        for each in missed.persisted:
            arrived = unmarked.get((each.channel, each.payload))
            if arrived is None:
                together.append(each)
            elif each.position is not None and each.position > missed.since:
                together.append(each)
                held.remove(arrived)
        # So is that of one which arrived before something that was missed.
        latest = max((each.position or missed.since for each in together), default=missed.since)
        place, later = missed.since, list[Publication]()
        for each in held:
            place = max(place, each.position or place)
            if each.marked or place >= latest:
                later.append(each)
            else:
                together.append(
                    PositionedPublication(each.channel, each.payload, place, marked=False)
                )
        together.sort(key=attrgetter("position"))
        early = [
            PositionedPublication(b"", payload, missed.since, marked=False, replayed=True)
            for payload in self._early
        ]
        self._early.clear()
        entries: list[Entry] = [(b"", first)]
        for each in (*early, *together):
            entries.append((each.channel, each.forms.get(codec) or each.form(codec)))
        entries.append((b"", last))
        self._live, self._opening, self.since = True, False, until
        outbox.replay([each for each in entries if each[1]])
        lost, self._lost = self._lost, {}
        gap = [channel for channel, last in lost.items() if last is None or last > until]
        if gap:
            outbox.replay([(b"", outbox.codec.notify(Notice(until, frozenset(gap))))])
        for each in later:
            if each.marked:
                if each.position is not None and each.position > until:
                    until = each.position
                    super().deliver(each)
            else:
                super().deliver(
                    PositionedPublication(each.channel, each.payload, until, marked=False)
                )
        if outbox.can_be_direct and not outbox.closed:
            self.direct = outbox
            CHANGES.number += 1

    def forms(self) -> list[bytes]:
        return [*super().forms(), *[each.payload for each in self._held]]

    def drop_half(self) -> list[bytes]:
        if self._outbox.policy == CLOSE:
            return []
        return [self._drop_oldest() for _ in range((len(self._held) + 1) // 2)]

    def close(self) -> None:
        super().close()
        self._held.clear()
        self._early.clear()

    def _hold(self, publication: Publication) -> None:
        outbox, size = self._outbox, publication.size + MESSAGE_COST
        if outbox.closed or not publication.number:
            return
        while self._held and self._held_bytes + size > outbox.max_pending:
            if outbox.policy == CLOSE:
                outbox.give_up()
                return
            self._drop_oldest()
        self._held.append(publication)
        self._held_bytes += size
        outbox.grew(size)

    def _drop_oldest(self) -> bytes:
        oldest = self._held.popleft()
        self._held_bytes -= oldest.size + MESSAGE_COST
        self._outbox.dropped += 1
        channel, position = oldest.channel, oldest.position if oldest.marked else None
        if channel is not None:
            self._lost[channel] = position if self._lost.get(channel, position) else None
        return oldest.payload


def mark_listeners(hub: Hub, channels: Iterable[bytes], position: Position | None) -> None:
    """Tell those listeners to ``channels`` who keep a position that it has moved on."""
    for channel in channels:
        for listener in tuple(hub.listeners.get(channel, ())):
            if isinstance(listener, ResumingFeed):
                listener.mark(position)
