"""The listeners of a broker in memory, and what they hear."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.names import is_control_channel
from ws4redis_tx.core.positions import Missed, Position
from ws4redis_tx.delivery.fanout import Fanout
from ws4redis_tx.delivery.hub import EchoNotes, Hub
from ws4redis_tx.delivery.resuming import mark_listeners
from ws4redis_tx.redis.channel_table import ChannelTable
from ws4redis_tx.redis.history.markers import MARK_DELAY, Markers
from ws4redis_tx.testing.memory.history_store import Arrived, HistoryStore
from ws4redis_tx.testing.memory.in_flight import InFlight

_log = Logger()


class Dispatcher:
    """Turns what arrives into publications, and hands them to the listeners of their channels.

    Knows up to which position everything was handed over. Clients without a position are told a
    little later, as the real broker's probe does it.
    """

    def __init__(self, history: HistoryStore, in_flight: InFlight) -> None:
        self.hub = Hub(lambda: _log.failure("A listener or codec failed; others get the message"))
        # The channels between servers. ``hub`` has the channels of websockets.
        self.control = Hub(lambda: _log.failure("A listener of a control channel failed"))
        self.notes = EchoNotes()
        self._history = history
        self._in_flight = in_flight
        hubs = (self.hub, self.control)
        self._tables = [ChannelTable(hub, self._subscribe, self._unsubscribe) for hub in hubs]
        # No time passes while they run, so they never pause.
        self._fanouts = [Fanout(hub, lambda: 0.0, lambda run: run()) for hub in hubs]
        self.use_history()

    def use_history(self) -> None:
        """The rules of the histories have changed."""
        history = self._history
        self._markers = Markers(history.prefix, history.rules, self._ask_for_position)
        if history.rules:
            self._markers.advance(history.position)
        for channel in self.hub.channels:
            self._listen_beside(channel)

    # Listeners

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        return self._table(channel).listen(channel, listener)

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        self._table(channel).unlisten(channel, listener)

    def listened_to(self, channel: bytes) -> bool:
        return channel in self._table(channel).hub.channels

    def _table(self, channel: bytes) -> ChannelTable:
        return self._tables[is_control_channel(channel)]

    def _subscribe(self, channel: bytes) -> Deferred[None]:
        self._listen_beside(channel)
        return self._in_flight.answer(None)

    def _listen_beside(self, channel: bytes) -> None:
        """Hear the markers of ``channel``, or those that it has itself."""
        side, about = self._markers.side_of(channel), self._markers.about(channel)
        if about is not None:
            self._markers.listen(about, channel)
        if side is not None:
            self._markers.listen(channel, side)

    def _unsubscribe(self, channel: bytes) -> None:
        self._markers.unlisten(channel, self.hub.channels)

    # Messages

    def deliver(self, messages: Iterable[Arrived]) -> None:
        """Hand over messages that arrive together."""
        for is_control, part in groupby(messages, lambda each: is_control_channel(each[0])):
            table = self._tables[is_control]
            made = [self._publication(table, *each) for each in part]
            publications = [each for each in made if each is not None]
            if publications:
                self._fanouts[is_control].hand_over(publications)

    def _publication(
        self, table: ChannelTable, channel: bytes, payload: bytes
    ) -> Publication | None:
        """That of a message. A marker is none, but a coming or going is."""
        heard = channel in table.hub.channels
        is_message = heard and channel not in table.subscribing
        if table.hub is self.control:
            return Publication(channel, payload) if is_message else None
        if channel in self._markers.sides or not is_message:
            arrival = self._markers.take(channel, payload)
            return arrival if heard else None
        return self._markers.publication(channel, payload, self.notes.take(channel, payload))

    def then(self, function: Callable[[], object]) -> None:
        """Call ``function`` when all that has arrived was handed over."""
        self._fanouts[0].then(function)

    def lost(self) -> None:
        """The connection is lost, and what is in flight with it."""
        self.notes.clear()
        self._markers.drop()

    # Positions

    @property
    def reached(self) -> Position | None:
        """That of the last message that has arrived."""
        return self._markers.position

    @property
    def position(self) -> Position | None:
        """While nothing is in flight, that of the present."""
        if self._in_flight.idle and self._markers.position is not None:
            self._markers.advance(self._history.position)
        return self._markers.position

    def caught_up(self, missed: Missed) -> Missed:
        self._markers.advance(missed.until)
        return missed

    def _ask_for_position(self) -> Any:
        clock = self._in_flight.clock
        return clock and clock.callLater(MARK_DELAY, self._probe)

    def _probe(self) -> None:
        probe = self._in_flight.answer(self._history.position.stamp)
        probe.addCallbacks(self._proven, lambda lost: None)

    def _proven(self, stamp: int) -> None:
        unmarked = self._markers.advance_to(stamp)
        self.then(lambda: mark_listeners(self.hub, unmarked, self._markers.position))
