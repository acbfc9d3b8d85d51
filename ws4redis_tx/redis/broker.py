"""Our one door to Redis: a connection for pub/sub, a connection for commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import PersistedMessage
from ws4redis_tx.core.positions import (
    NOT_KEPT,
    History,
    HistoryRules,
    Kept,
    Position,
    Wanted,
)
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.dispatcher import Dispatcher
from ws4redis_tx.redis.streams import Streams
from ws4redis_tx.redis.wire.refusals import Trouble
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.scheduling.waiters import Callbacks, Waiters

_log = Logger()

COMMAND_TIMEOUT = 5.0


class RedisBroker(Service):
    """``IBroker`` over two connections, however many listeners there are.

    A lost connection is made anew. Listeners stay; before the broker is ``available`` again, every
    channel is subscribed and it is known which ones missed a message. Those messages are delivered
    in portions, each before what follows on its channel.
    """

    def __init__(
        self, address: RedisAddress, prefix: str, reactor: Any, history: HistoryRules = ()
    ) -> None:
        self.address = address
        self.commands = Commands(
            address,
            prefix,
            reactor,
            timeout=COMMAND_TIMEOUT,
            on_up=self._came_up,
            on_down=self._went_down,
        )
        self._dispatcher = Dispatcher(
            address,
            prefix,
            reactor,
            self.commands,
            on_up=self._came_up,
            on_down=self._went_down,
            history=history,
        )
        self._streams = Streams(self.commands, reactor)
        self.hub = self._dispatcher.hub
        self._notes = self._dispatcher.notes
        self._keeps_history = bool(history)
        self._was_down = False
        self._available: Waiters[None] = Waiters()
        self._restored = Callbacks()
        # Those who registered for outages were told of all up to this generation.
        self._told: int | None = None

    def startService(self) -> None:
        super().startService()
        self.commands.start()
        self._dispatcher.start()
        if self._keeps_history:
            available = self.when_available()
            available.addCallback(lambda _: self.commands.warn_of_eviction())

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return gather([self.commands.stop(), self._dispatcher.stop()])

    @property
    def available(self) -> bool:
        return self._dispatcher.up and self.commands.connected

    @property
    def generation(self) -> int:
        return self._dispatcher.generation

    def generation_of(self, channels: Iterable[bytes]) -> int:
        return self._dispatcher.generation

    def when_available(self) -> Deferred[None]:
        return succeed(None) if self.available else self._available.wait()

    def on_restored(self, callback: Callable[[], object]) -> Callable[[], None]:
        return self._restored.add(callback)

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        return self._dispatcher.listen(channel, listener)

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        self._dispatcher.unlisten(channel, listener)

    def fence(self, channels: Iterable[bytes] | None = None) -> Deferred[None]:
        return self._dispatcher.fence(channels)

    def fileno(self) -> int | None:
        return self._dispatcher.fileno()

    def forget(self, listener: IListener) -> None:
        self._notes.forget(listener)

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        sender: IListener | None = None,
        history: History | None = None,
        info: bytes = b"",
    ) -> Deferred[int]:
        noted = [channel for channel in channels if sender and self.hub.has(channel, sender)]
        for channel in noted:
            self._notes.note(channel, message, sender)

        def not_published(failure: Failure) -> Failure:
            for channel in noted:
                self._notes.drop(channel, message, sender)
            return failure

        kept = Kept(history, info=info) if history is not None or info else NOT_KEPT
        published: Deferred[Any] = self.commands.publish(channels, message, expire, kept)
        return published.addErrback(not_published)

    def record(
        self, channel: bytes, message: bytes, entries: Mapping[bytes, bytes], seconds: int
    ) -> Deferred[int]:
        """Publish a message between servers, and keep entries for those that do not listen."""
        return self.commands.record(channel, message, entries, seconds)

    def get(self, channel: bytes) -> Deferred[PersistedMessage | None]:
        return self.commands.get([channel]).addCallback(self._got)

    def _got(self, messages: list[PersistedMessage | None]) -> PersistedMessage | None:
        (message,) = messages
        if message is not None:
            self._dispatcher.read(message.channel, message)
        return message

    @property
    def presence(self) -> Commands:
        """An ``IPresence``."""
        return self.commands

    # Positions

    @property
    def position(self) -> Position | None:
        return self._dispatcher.markers.position

    def when_handed_over(self, function: Callable[[], object]) -> None:
        self._dispatcher.when_handed_over(function)

    def on_lost(self, callback: Callable[[], object]) -> Callable[[], None]:
        return self._dispatcher.on_lost.add(callback)

    def now(self) -> Deferred[Position | None]:
        return self._dispatcher.missed.now()

    @inlineCallbacks
    def missed(
        self,
        channels: Sequence[bytes],
        since: Position | None,
        *,
        persisted: bool = False,
        replayed: bool = True,
    ) -> Any:
        generation = self.generation
        missed = yield self._dispatcher.missed.ask(
            channels, since, persisted=persisted, replayed=replayed
        )
        yield self.fence(channels)
        if self.generation != generation:
            raise BrokerUnavailable("The connection to Redis was replaced.")
        self._dispatcher.markers.advance(missed.until)
        return missed

    @inlineCallbacks
    def stream(self, wanted: Wanted, *, alone: bool = False) -> Any:
        generation = self.generation
        if alone:
            (stream,) = yield self._streams.read(wanted)
        else:
            stream = yield self._streams.ask(wanted)
        yield self.fence([wanted.channel])
        if self.generation != generation:
            raise BrokerUnavailable("The connection to Redis was replaced.")
        return stream

    def _went_down(self, trouble: Trouble) -> None:
        if not self._was_down and self.running:
            self._was_down = True
            _log.warn(
                "Redis is unavailable ({problem}). Trying again until it is back; new websockets "
                "are answered with 503 meanwhile. {remedy}",
                problem=trouble.problem,
                remedy=trouble.remedy,
            )

    def _came_up(self) -> None:
        if not self.available:
            return
        if self._was_down:
            self._was_down = False
            _log.info("Redis is available again: {address}", address=str(self.address))
        if self._told is None:
            self._told = self.generation
        self._available.fire(None)
        self._dispatcher.when_handed_over(self._tell_restored)

    def _tell_restored(self) -> None:
        # Else another outage began meanwhile, whose end tells of both.
        if self.available and self._told != self.generation:
            self._told = self.generation
            self._restored.call()
