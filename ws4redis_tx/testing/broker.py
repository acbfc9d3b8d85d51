"""Redis in memory: an ``IBroker`` that keeps the promises of the real one, and breaks what a test
tells it to break.

Knows no sockets and no reactor. It keeps the order of Redis and of one connection to it: messages
and answers arrive in the order they were sent, and those that arrive together are handed over
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
from ws4redis_tx.core.messages import PersistedMessage, Publication
from ws4redis_tx.core.names import is_control_channel
from ws4redis_tx.delivery.fanout import Fanout
from ws4redis_tx.delivery.hub import EchoNotes, Hub
from ws4redis_tx.redis.channel_table import ChannelTable
from ws4redis_tx.scheduling.waiters import Callbacks, Waiters
from ws4redis_tx.testing.in_flight import InFlight, Message
from ws4redis_tx.testing.key_store import KeyStore

_log = Logger()


class MemoryBroker:
    """An ``IBroker`` in memory. Everything that a call sets off has happened when the call returns,
    unless there is a ``delay``.

    :param clock: measures ``delay``, and the time until persisted messages expire;
        ``make_memory_factory`` lends its own. Without a clock nothing expires, and delayed messages
        and answers wait for ``flush``.
    """

    def __init__(self, clock: Any = None) -> None:
        self.available = True
        self.generation = 0
        self.hub = Hub(lambda: _log.failure("A listener failed; the others get the message"))
        # The channels between servers. Those of ``hub`` are the websockets'.
        self.control = Hub(lambda: _log.failure("A listener of a control channel failed"))
        hubs = (self.hub, self.control)
        self._tables = [ChannelTable(hub, self._subscribe, lambda channel: None) for hub in hubs]
        # No time passes while they hand over.
        self._fanouts = [Fanout(hub, lambda: 0.0, lambda run: run()) for hub in hubs]
        self._in_flight = InFlight(clock, self._arrived)
        self._keys = KeyStore(lambda: self._in_flight.now)
        self._notes = EchoNotes()
        self._faults: deque[bool] = deque()
        self._available: Waiters[None] = Waiters()
        self._restored = Callbacks()

    @property
    def persisted(self) -> dict[bytes, bytes]:
        """The last message of each channel that was to be persisted."""
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
        """Seconds from a call to its answer, and from a publish to its messages' arrival;
        ``math.inf``: until ``flush``. Initially 0.
        """
        return self._in_flight.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._in_flight.delay = seconds

    def fail_next(self, count: int = 1, *, maybe_published: bool = False) -> None:
        """Have the next ``count`` calls of ``publish``, ``get`` and ``listen`` fail with
        ``BrokerUnavailable``.

        With ``maybe_published`` the message goes out all the same, and only the answer is lost.
        Otherwise nothing goes out.
        """
        self._faults.extend([maybe_published] * count)

    def lose_connection(self) -> None:
        """Be unavailable until ``restore``. All that is on its way is lost: calls that wait for
        their answer fail with ``BrokerUnavailable``. Listeners stay.
        """
        self.available = False
        self._notes.clear()
        for each in self._in_flight.lose():
            if isinstance(each, Message):
                if each.persisted:
                    self._keys.miss(each.channel)
            else:
                each.deferred.errback(
                    BrokerUnavailable("The connection was lost.", maybe_published=each.sent)
                )

    def restore(self) -> None:
        """Deliver the persisted messages that were missed, and then be ``available`` again, as
        another ``generation``.
        """
        if self.available:
            return
        self.generation += 1
        self._dispatch(self._keys.take_missed())
        self.available = True
        self._available.fire(None)
        self._restored.call()

    def publish_elsewhere(self, channels: Sequence[bytes], message: bytes, expire: int = 0) -> int:
        """Publish as another process does: its connection to Redis works, whatever happens to this
        one. Return the receiver count.
        """
        receivers = self._publish(channels, message, expire)
        self._in_flight.hand_over()
        return receivers

    def flush(self) -> None:
        """Have everything that is on its way arrive now, and all that it sets off."""
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
    ) -> Deferred[int]:
        fault = self._fault()
        if fault is not None and not fault.maybe_published:
            return fail(fault)
        for channel in channels:
            if sender is not None and self.hub.has(channel, sender):
                self._notes.note(channel, message, sender)
        receivers = self._publish(channels, message, expire)
        return self._in_flight.answer(receivers if fault is None else Failure(fault), sent=True)

    def get(self, channel: bytes) -> Deferred[PersistedMessage | None]:
        fault = self._fault()
        if fault is not None:
            return fail(fault)
        message = self._keys.read(channel)
        return self._in_flight.answer(
            None if message is None else PersistedMessage(message, channel)
        )

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

    def fileno(self) -> int | None:
        return None

    # Redis

    def _table(self, channel: bytes) -> ChannelTable:
        return self._tables[is_control_channel(channel)]

    def _subscribe(self, channel: bytes) -> Deferred[None]:
        return self._in_flight.answer(None)

    def _fault(self) -> BrokerUnavailable | None:
        """Why this call fails, if it does."""
        if not self.available:
            return _unavailable()
        if self._faults:
            text = "MemoryBroker.fail_next said so."
            return BrokerUnavailable(text, maybe_published=self._faults.popleft())
        return None

    def _publish(self, channels: Sequence[bytes], message: bytes, expire: int) -> int:
        """Persist, send to the listeners, count them."""
        receivers = 0
        for channel in channels:
            if expire:
                self._keys.keep(channel, message, expire)
            if self.available:
                receivers += channel in self._table(channel).hub.channels
                self._in_flight.add(channel, message, persisted=bool(expire))
            elif expire:
                self._keys.miss(channel)
        return receivers

    def _arrived(self, messages: Iterable[Message]) -> None:
        self._dispatch([(each.channel, each.payload) for each in messages])

    def _dispatch(self, messages: Iterable[tuple[bytes, bytes]]) -> None:
        for is_control, part in groupby(messages, lambda each: is_control_channel(each[0])):
            table = self._tables[is_control]
            publications = [
                Publication(channel, payload, self._notes.take(channel, payload))
                for channel, payload in part
                if channel in table.hub.channels and channel not in table.subscribing
            ]
            if publications:
                self._fanouts[is_control].hand_over(publications)


def _unavailable() -> BrokerUnavailable:
    return BrokerUnavailable("There is no connection to Redis: MemoryBroker.restore() makes one.")
