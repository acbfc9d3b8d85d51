"""Redis in memory: an ``IBroker`` that keeps the promises of the real one, and fails when a test
tells it to.

Knows no sockets and no reactor. It keeps the order of a single connection to Redis: messages and
answers arrive in the order in which they were sent, and those that arrive together are handed over
together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import PersistedMessage, Published
from ws4redis_tx.core.positions import History, HistoryRules, Missed, Position, Stream, Wanted
from ws4redis_tx.scheduling.waiters import Callbacks, Waiters
from ws4redis_tx.testing.memory.dispatcher import Dispatcher
from ws4redis_tx.testing.memory.history_store import HistoryStore
from ws4redis_tx.testing.memory.in_flight import InFlight, Message
from ws4redis_tx.testing.memory.key_store import KeyStore, PresenceStore


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
        self._in_flight = InFlight(clock, self._arrived)
        self._keys = KeyStore(lambda: self._in_flight.now)
        self._faults: deque[bool] = deque()
        self._available: Waiters[None] = Waiters()
        self._restored, self._lost = Callbacks(), Callbacks()
        self._history = HistoryStore(lambda: self._in_flight.now, self._keys, history)
        self._dispatcher = Dispatcher(self._history, self._in_flight)
        self.hub, self._notes = self._dispatcher.hub, self._dispatcher.notes
        self.control = self._dispatcher.control
        self.presence = PresenceStore(self)

    def use_history(self, rules: HistoryRules, prefix: str = "") -> None:
        """Expect histories as a server with these settings does."""
        if (self._history.rules, self._history.prefix) != (rules, prefix):
            self._history.rules, self._history.prefix = rules, prefix
            self._dispatcher.use_history()
        self.presence.prefix = prefix

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
        """Make the next ``count`` calls of ``publish``, ``get``, ``listen``, ``missed`` and
        ``stream`` fail with ``BrokerUnavailable``.

        With ``maybe_published`` the message is published anyway, and only the answer is lost.
        Otherwise nothing is published.
        """
        self._faults.extend([maybe_published] * count)

    def lose_connection(self) -> None:
        """Become unavailable until ``restore``. Everything in flight is lost: calls that wait for
        an answer fail with ``BrokerUnavailable``. Listeners stay.
        """
        self.available = False
        self._dispatcher.lost()
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
        self._dispatcher.deliver(self._history.take_missed(self.hub.channels, self.position))
        self.available = True
        self._available.fire(None)
        self._restored.call()

    def publish_elsewhere(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int = 0,
        *,
        kept: bool = True,
        info: bytes = b"",
    ) -> int:
        """Publish as another process would, even while this broker is unavailable. Return the
        receiver count. ``kept``: that process has the same setting of histories.
        """
        history = self._history.history_of if kept else lambda channel: None
        receivers = self._publish(channels, message, expire, history, info)
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
        return self._dispatcher.listen(channel, listener) if fault is None else fail(fault)

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        self._dispatcher.unlisten(channel, listener)

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        sender: IListener | None = None,
        history: History | None = None,
        info: bytes = b"",
    ) -> Deferred[int]:
        fault = self._fault()
        if fault is not None and not fault.maybe_published:
            return fail(fault)
        for channel in channels:
            if sender is not None and self.hub.has(channel, sender):
                self._notes.note(channel, message, sender)
        receivers = self._publish(channels, message, expire, lambda _: history, info)
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
            return self._dispatcher.reached
        return self._dispatcher.position

    def when_handed_over(self, function: Callable[[], object]) -> None:
        self._dispatcher.then(function)

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
        return self._in_flight.answer(missed).addCallback(self._dispatcher.caught_up)

    def stream(self, wanted: Wanted, *, alone: bool = False) -> Deferred[Stream]:
        fault = self._fault()
        if fault is not None:
            return fail(fault)
        return self._in_flight.answer(self._history.stream(wanted))

    def fileno(self) -> int | None:
        return None

    # Redis

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
        info: bytes,
    ) -> Published:
        """Persist and keep the message, send it to the listeners, and count them."""
        receivers, position = 0, ""
        for channel in channels:
            history = history_of(channel)
            stamp, marker = self._history.publish(channel, message, expire, history, info)
            if history is not None:
                position = str(self._history.at(stamp))
            if self.available:
                receivers += self._dispatcher.listened_to(channel)
                if marker:
                    self._in_flight.add(self._history.side(channel), marker)
                self._in_flight.add(channel, message, persisted=bool(expire))
            elif expire:
                self._keys.miss(channel)
        return Published(receivers, position)

    def _arrived(self, messages: Iterable[Message]) -> None:
        self._dispatcher.deliver([(each.channel, each.payload) for each in messages])


def _unavailable() -> BrokerUnavailable:
    return BrokerUnavailable("The MemoryBroker is unavailable until the test calls restore().")
