"""Our one door to Redis: a connection for pub/sub, a connection for commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import PersistedMessage
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.subscriptions import Subscriptions
from ws4redis_tx.scheduling.deferreds import gather

_log = Logger()

COMMAND_TIMEOUT = 5.0


class RedisBroker(Service):
    """``IBroker`` over two connections, however many listeners there are.

    A lost connection is made anew. Listeners stay; before the broker is ``available`` again, every
    channel is subscribed and what was persisted there meanwhile is delivered.
    """

    def __init__(self, address: RedisAddress, prefix: str, reactor: Any) -> None:
        self.address = address
        self.commands = Commands(
            address,
            prefix,
            reactor,
            timeout=COMMAND_TIMEOUT,
            on_up=self._came_up,
            on_down=self._went_down,
        )
        self._subscriptions = Subscriptions(
            address,
            prefix,
            reactor,
            self.commands,
            on_up=self._came_up,
            on_down=self._went_down,
        )
        self.hub = self._subscriptions.hub
        self._notes = self._subscriptions.notes
        self.listen = self._subscriptions.listen
        self.unlisten = self._subscriptions.unlisten
        self.fence = self._subscriptions.fence
        self.fileno = self._subscriptions.fileno
        self._was_down = False
        self._waiting: list[Deferred[None]] = []

    def startService(self) -> None:
        super().startService()
        self.commands.start()
        self._subscriptions.start()

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return gather([self.commands.stop(), self._subscriptions.stop()])

    @property
    def available(self) -> bool:
        return self._subscriptions.up and self.commands.connected

    @property
    def generation(self) -> int:
        return self._subscriptions.generation

    def when_available(self) -> Deferred[None]:
        if self.available:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def forget(self, listener: IListener) -> None:
        self._notes.forget(listener)

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
        return self.commands.get([channel]).addCallback(self._got)

    def _got(self, messages: list[PersistedMessage | None]) -> PersistedMessage | None:
        (message,) = messages
        if message is not None:
            self._subscriptions.read(message.channel, message)
        return message

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
