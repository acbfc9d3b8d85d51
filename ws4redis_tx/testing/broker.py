"""Redis in memory: an ``IBroker`` that keeps the promises of the real one, and fails when a test
tells it to.

Knows no sockets and no reactor. It keeps the order of a single connection to Redis: messages and
answers arrive in the order in which they were sent, and those that arrive together are handed over
together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import PersistedMessage, Publication, Published
from ws4redis_tx.core.names import is_control_channel
from ws4redis_tx.core.positions import History, HistoryRules, Missed, Position
from ws4redis_tx.delivery.fanout import Fanout
from ws4redis_tx.delivery.hub import EchoNotes, Hub
from ws4redis_tx.redis.channel_table import ChannelTable
from ws4redis_tx.scheduling.waiters import Callbacks, Waiters
from ws4redis_tx.testing.history_store import Arrived, HandedOver, HistoryStore
from ws4redis_tx.testing.in_flight import InFlight, Message
from ws4redis_tx.testing.key_store import KeyStore, PresenceStore

_log = Logger()


class MemoryBroker:
    """An ``IBroker`` in memory. All effects of a call are complete when it returns, unless there is
    a ``delay``.

    :param clock: measures ``delay`` and the expiry of messages. ``make_memory_factory`` adds its
        own if there is none. Without a clock nothing expires, no mark follows a message without a
        position, and delayed messages and answers wait for ``flush``.
    :param history: the histories, as in ``ServerConfig``. ``make_memory_factory`` adds its own.
    """

    def __init__(self, clock: Any = None, history: HistoryRules = ()) -> None:
        self.available = True
        self.generation = 0
        self.hub = Hub(lambda: _log.failure("A listener or codec failed; others get the message"))
        # The channels between servers. ``hub`` has the channels of websockets.
        self.control = Hub(lambda: _log.failure("A listener of a control channel failed"))
        hubs = (self.hub, self.control)
        self._in_flight = InFlight(clock, self._arrived)
        stands = lambda channel: self._in_flight.answer(None)  # noqa: E731
        self._tables = [ChannelTable(hub, stands, lambda channel: None) for hub in hubs]
        # No time passes while they run, so they never pause.
        self._fanouts = [Fanout(hub, lambda: 0.0, lambda run: run()) for hub in hubs]
        self._keys = KeyStore(lambda: self._in_flight.now)
        self._notes = EchoNotes()
        self._faults: deque[bool] = deque()
        self._available: Waiters[None] = Waiters()
        self._restored, self._lost = Callbacks(), Callbacks()
        self._history = HistoryStore(lambda: self._in_flight.now, self._keys)
        self.presence = PresenceStore(self)
        self.use_history(history)

    def use_history(self, rules: HistoryRules, prefix: str = "") -> None:
        """Expect histories as a server with these settings does."""
        self._history.rules, self._history.prefix = rules, prefix
        self.presence.prefix = prefix
        self._handed_over = HandedOver(self._history, self._in_flight, self.hub, self._fanouts[0])

    @property
    def persisted(self) -> dict[bytes, bytes]:
        """The last persisted message of each channel."""
        return self._keys.messages

    @property
    def clock(self) -> Any:
        return self._in_flight.clock

    @clock.setter
    def clock(self, clock: Any) -> None:
        self._in_flight.clock = clock

    # Trouble

    @property
    def delay(self) -> float:
        """Seconds from a call to its answer, and from a publish to the arrival of its messages.
        ``math.inf`` waits for ``flush``. Initially 0.
        """
        return self._in_flight.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._in_flight.delay = seconds

    def fail_next(self, count: int = 1, *, maybe_published: bool = False) -> None:
        """Make the next ``count`` calls of ``publish``, ``get``, ``listen`` and ``missed`` fail
        with ``BrokerUnavailable``.

        With ``maybe_published`` the message is published anyway, and only the answer is lost.
        Otherwise nothing is published.
        """
        self._faults.extend([maybe_published] * count)

    def lose_connection(self) -> None:
        """Become unavailable until ``restore``. Everything in flight is lost: calls that wait for
        an answer fail with ``BrokerUnavailable``. Listeners stay.
        """
        self.available = False
        self._notes.clear()
        self._handed_over.markers.drop()
        for each in self._in_flight.lose():
            if isinstance(each, Message):
                if each.persisted:
                    self._keys.miss(each.channel)
            else:
                each.deferred.errback(
                    BrokerUnavailable("The connection was lost.", maybe_published=each.sent)
                )
        self.when_handed_over(self._lost.call)

    def restore(self) -> None:
        """Deliver what was missed, from the histories or else the persisted messages; then become
        ``available`` again, with a new ``generation``.
        """
        if self.available:
            return
        self.generation += 1
        self._dispatch(self._history.take_missed(self.hub.channels, self.position))
        self.available = True
        self._available.fire(None)
        self._restored.call()

    def publish_elsewhere(
        self, channels: Sequence[bytes], message: bytes, expire: int = 0, *, kept: bool = True
    ) -> int:
        """Publish as another process would, even while this broker is unavailable. Return the
        receiver count. ``kept``: that process has the same setting of histories.
        """
        history = self._history.history_of if kept else lambda channel: None
        receivers = self._publish(channels, message, expire, history)
        self._in_flight.hand_over()
        return receivers

    def forget_elsewhere(self, channels: Iterable[bytes]) -> None:
        """Delete what is persisted and kept, as ``RedisPublisher.forget`` does."""
        for channel in channels:
            self._history.forget(channel)

    def flush(self) -> None:
        """Deliver everything in flight now, and everything that this causes."""
        self._in_flight.flush()

    # IBroker

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        fault = self._fault()
        return self._table(channel).listen(channel, listener) if fault is None else fail(fault)

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        self._table(channel).unlisten(channel, listener)

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        sender: IListener | None = None,
        history: History | None = None,
    ) -> Deferred[int]:
        fault = self._fault()
        if fault is not None and not fault.maybe_published:
            return fail(fault)
        for channel in channels:
            if sender is not None and self.hub.has(channel, sender):
                self._notes.note(channel, message, sender)
        receivers = self._publish(channels, message, expire, lambda _: history)
        return self._in_flight.answer(receivers if fault is None else Failure(fault), sent=True)

    def get(self, channel: bytes) -> Deferred[PersistedMessage | None]:
        fault = self._fault()
        if fault is not None:
            return fail(fault)
        message = self._keys.read(channel)
        found = None if message is None else PersistedMessage(message, channel)
        return self._in_flight.answer(found)

    def fence(self, channels: Iterable[bytes] | None = None) -> Deferred[None]:
        return self._in_flight.answer(None) if self.available else fail(_unavailable())

    def forget(self, listener: IListener) -> None:
        self._notes.forget(listener)

    def when_available(self) -> Deferred[None]:
        return succeed(None) if self.available else self._available.wait()

    def on_restored(self, callback: Callable[[], object]) -> Callable[[], None]:
        return self._restored.add(callback)

    def generation_of(self, channels: Iterable[bytes]) -> int:
        return self.generation

    # IHistory

    @property
    def position(self) -> Position | None:
        if not self.available:
            return self._handed_over.markers.position
        return self._handed_over.position

    def when_handed_over(self, function: Callable[[], object]) -> None:
        self._fanouts[0].then(function)

    def on_lost(self, callback: Callable[[], object]) -> Callable[[], None]:
        return self._lost.add(callback)

    def now(self) -> Deferred[Position | None]:
        if not self.available:
            return fail(_unavailable())
        return self._in_flight.answer(self._history.position)

    def missed(
        self,
        channels: Sequence[bytes],
        since: Position | None,
        *,
        persisted: bool = False,
        replayed: bool = True,
    ) -> Deferred[Missed]:
        fault = self._fault()
        if fault is not None:
            return fail(fault)
        missed = self._history.missed(channels, since, persisted, replayed)
        return self._in_flight.answer(missed).addCallback(self._handed_over.caught_up)

    def fileno(self) -> int | None:
        return None

    # Redis

    def _table(self, channel: bytes) -> ChannelTable:
        return self._tables[is_control_channel(channel)]

    def _fault(self) -> BrokerUnavailable | None:
        """The failure that a test has asked for, if any."""
        if not self.available:
            return _unavailable()
        if not self._faults:
            return None
        text = "The test called MemoryBroker.fail_next."
        return BrokerUnavailable(text, maybe_published=self._faults.popleft())

    def _publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        history_of: Callable[[bytes], History | None],
    ) -> Published:
        """Persist and keep the message, send it to the listeners, and count them."""
        receivers, position = 0, ""
        for channel in channels:
            history = history_of(channel)
            stamp = self._history.publish(channel, message, expire, history)
            if history is not None:
                position = str(self._history.at(stamp))
            if self.available:
                receivers += channel in self._table(channel).hub.channels
                marker = stamp if history and self._history.history_of(channel) else None
                self._in_flight.add(channel, message, persisted=bool(expire), stamp=marker)
            elif expire:
                self._keys.miss(channel)
        return Published(receivers, position)

    def _arrived(self, messages: Iterable[Message]) -> None:
        self._dispatch([(each.channel, each.payload, each.stamp) for each in messages])

    def _dispatch(self, messages: Iterable[Arrived]) -> None:
        for is_control, part in groupby(messages, lambda each: is_control_channel(each[0])):
            table = self._tables[is_control]
            publications = [
                self._publication(*each)
                for each in part
                if each[0] in table.hub.channels and each[0] not in table.subscribing
            ]
            if publications:
                self._fanouts[is_control].hand_over(publications)

    def _publication(self, channel: bytes, payload: bytes, stamp: int | None) -> Publication:
        if is_control_channel(channel):
            return Publication(channel, payload)
        return self._handed_over.publication(channel, payload, stamp, self._notes)


def _unavailable() -> BrokerUnavailable:
    return BrokerUnavailable("The MemoryBroker is unavailable until the test calls restore().")
