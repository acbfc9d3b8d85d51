"""Our one door to Redis: a connection for pub/sub, a connection for commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.hub import EchoNotes, Hub
from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import PersistedMessage, Publication
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.server.commands import Commands
from ws4redis_tx.server.deferreds import gather
from ws4redis_tx.server.redis_connection import PubSubProtocol, RedisConnection

_log = Logger()

COMMAND_TIMEOUT = 5.0


class RedisBroker(Service):
    """``IBroker`` over two connections, however many listeners there are.

    A lost connection is made anew. Listeners stay; every channel is subscribed again before the
    broker is ``available`` again.
    """

    def __init__(self, address: RedisAddress, prefix: str, reactor: Any) -> None:
        self.address = address
        self.hub = Hub(lambda: _log.failure("A listener failed; the others get the message"))
        self._notes = EchoNotes()
        self.commands = Commands(
            address,
            prefix,
            reactor,
            timeout=COMMAND_TIMEOUT,
            on_up=self._came_up,
            on_down=self._went_down,
        )
        self._pubsub = RedisConnection(
            address,
            reactor,
            lambda: PubSubProtocol(self._on_messages),
            prepare=self._resubscribe,
            on_up=self._came_up,
            on_down=self._went_down,
        )
        self.generation = 0
        self._protocol: PubSubProtocol | None = None
        self._subscribing: dict[bytes, list[Deferred[None]]] = {}
        self._fenced: list[Deferred[None]] = []
        self._fencing = False
        self._was_down = False
        self._waiting: list[Deferred[None]] = []

    def startService(self) -> None:
        super().startService()
        self.commands.start()
        self._pubsub.start()

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return gather([self.commands.stop(), self._pubsub.stop()])

    @property
    def available(self) -> bool:
        return self._pubsub.protocol is not None and self.commands.connected

    def when_available(self) -> Deferred[None]:
        """Fire when messages can be published and received."""
        if self.available:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    # Listening

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        if self._pubsub.protocol is None:
            return fail(BrokerUnavailable("There is no connection to Redis."))
        if self.hub.add(channel, listener):
            waiting = self._subscribing[channel] = []
            self._pubsub.protocol.subscribe(channel).addBoth(self._subscribed, channel, waiting)
        elif channel in self._subscribing:
            waiting = self._subscribing[channel]
        else:
            return succeed(None)
        stands: Deferred[None] = Deferred()
        waiting.append(stands)
        return stands.addErrback(self._not_subscribed, channel, listener)

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        if self.hub.discard(channel, listener):
            self._subscribing.pop(channel, None)
            if self._protocol is not None:
                self._protocol.unsubscribe(channel).addErrback(lambda _: None)

    def forget(self, listener: IListener) -> None:
        """Drop what is remembered of a listener that is gone, beside its channels."""
        self._notes.forget(listener)

    def fileno(self) -> int | None:
        if self._protocol is None:
            return None
        descriptor: int = self._protocol.transport.fileno()
        return descriptor

    def _subscribed(self, answer: object, channel: bytes, waiting: list[Deferred[None]]) -> None:
        if self._subscribing.get(channel) is waiting:
            del self._subscribing[channel]
        for stands in waiting:
            if isinstance(answer, Failure):
                stands.errback(BrokerUnavailable(f"Redis did not subscribe: {answer.value}"))
            else:
                stands.callback(None)

    def _not_subscribed(self, failure: Failure, channel: bytes, listener: IListener) -> Failure:
        self.unlisten(channel, listener)
        return failure

    def _resubscribe(self, protocol: PubSubProtocol) -> Deferred[Any]:
        self._protocol = protocol
        self.generation += 1
        protocol.whenDisconnected().addCallback(self._lost)
        return gather(protocol.subscribe(channel) for channel in self.hub.channels)

    def _lost(self, protocol: PubSubProtocol) -> None:
        if self._protocol is protocol:
            self._protocol = None
            self._notes.clear()

    def _on_messages(self, messages: list[tuple[bytes, bytes]]) -> None:
        for channel, payload in messages:
            self.hub.dispatch(Publication(channel, payload, self._notes.take(channel, payload)))

    def fence(self) -> Deferred[None]:
        stands: Deferred[None] = Deferred()
        self._fenced.append(stands)
        if not self._fencing:
            self._ping()
        return stands

    def _ping(self) -> None:
        """One PING serves all who asked before it was sent."""
        fenced, self._fenced = self._fenced, []
        protocol = self._pubsub.protocol
        if protocol is None:
            for stands in fenced:
                stands.errback(BrokerUnavailable("The connection to Redis was lost."))
            return
        self._fencing = True
        protocol.ping().addBoth(self._ponged, fenced)

    def _ponged(self, answer: object, fenced: list[Deferred[None]]) -> None:
        self._fencing = False
        if self._fenced:
            self._ping()
        for stands in fenced:
            if isinstance(answer, Failure):
                stands.errback(BrokerUnavailable("The connection to Redis was lost."))
            else:
                stands.callback(None)

    # Publishing and reading

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        sender: IListener | None = None,
    ) -> Deferred[int]:
        noted = [channel for channel in channels if sender and self.hub.has(channel, sender)]
        for channel in noted:
            self._notes.note(channel, message, sender)

        def not_published(failure: Failure) -> Failure:
            for channel in noted:
                self._notes.drop(channel, message, sender)
            return failure

        return self.commands.publish(channels, message, expire).addErrback(not_published)

    def get(self, channel: bytes) -> Deferred[PersistedMessage | None]:
        return self.commands.get([channel]).addCallback(lambda messages: messages[0])

    # Telling

    def _went_down(self, problem: str) -> None:
        if not self._was_down and self.running:
            self._was_down = True
            _log.warn(
                "Redis is unavailable ({problem}). Trying again until it is back; new websockets "
                "are answered with 503 meanwhile. Is the address right (WS4REDIS_CONNECTION, "
                "--redis), and is Redis running there?",
                problem=problem,
            )

    def _came_up(self) -> None:
        if not self.available:
            return
        if self._was_down:
            self._was_down = False
            _log.info("Redis is available again: {address}", address=str(self.address))
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)
