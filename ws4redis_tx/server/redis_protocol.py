"""What is spoken with Redis: commands, and pub/sub. Only here: txredisapi.

Its protocol classes are used, and not its factories: those reconnect, but neither subscribe again
nor survive an error at log-in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import txredisapi
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

ResponseError = txredisapi.ResponseError
LOST = txredisapi.ConnectionError

_log = Logger()


class CommandProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """Commands and their answers, in order; bytes stay bytes."""

    lost: Failure | None = None
    """Why the connection was lost, which the failures of what waited do not say."""

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason
        super().connectionLost(reason)


class PubSubProtocol(txredisapi.SubscriberProtocol):  # type: ignore[misc]
    """Subscriptions, their acknowledgements and messages, in the order Redis sent them.

    ``on_messages`` gets what one read brought, as (channel, payload) pairs. An acknowledgement or
    PONG fires after every message that came before it was handed over.
    """

    lost: Failure | None = None

    def __init__(self, on_messages: Callable[[list[tuple[bytes, bytes]]], None]) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._on_messages = on_messages
        self._messages: list[tuple[bytes, bytes]] = []
        self._expected: deque[tuple[bytes, bytes | None, Deferred[None]]] = deque()

    def subscribe(self, channel: bytes) -> Deferred[None]:
        return self._expect(b"subscribe", channel, "SUBSCRIBE", channel)

    def unsubscribe(self, channel: bytes) -> Deferred[None]:
        return self._expect(b"unsubscribe", channel, "UNSUBSCRIBE", channel)

    def ping(self) -> Deferred[None]:
        return self._expect(b"pong", None, "PING")

    def _expect(self, kind: bytes, channel: bytes | None, *command: object) -> Deferred[None]:
        if not self.connected:
            return fail(LOST("Not connected"))
        answered: Deferred[None] = Deferred()
        self._expected.append((kind, channel, answered))
        self.transport.write(self._build_command(*command))
        return answered

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        super().dataReceived(data, unpause)
        self._hand_over()

    def replyReceived(self, reply: Any) -> None:
        if type(reply) is list and len(reply) == 3 and reply[0] == b"message":
            self._messages.append((reply[1], reply[2]))
        elif self.replyQueue.waiting:  # AUTH and SELECT, before anything else
            self.replyQueue.put(reply)
        else:
            self._hand_over()
            self._answered(reply)

    def _hand_over(self) -> None:
        if self._messages:
            messages, self._messages = self._messages, []
            self._on_messages(messages)

    def _answered(self, reply: Any) -> None:
        if not self._expected:
            self._out_of_step()
            return
        kind, channel, answered = self._expected.popleft()
        if isinstance(reply, Exception):
            answered.errback(reply)
        elif _matches(reply, kind, channel):
            answered.callback(None)
        else:
            answered.errback(LOST("Redis answered something else"))
            self._out_of_step()

    def _out_of_step(self) -> None:
        _log.error("Redis sent an answer that nothing asked for; connecting anew.")
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason
        super().connectionLost(reason)
        expected, self._expected = self._expected, deque()
        for _, _, answered in expected:
            answered.errback(LOST("Lost connection"))


def _matches(reply: Any, kind: bytes, channel: bytes | None) -> bool:
    if kind == b"pong":  # a status while nothing is subscribed, then a list
        return reply == b"PONG" or (isinstance(reply, list) and reply[0] == kind)
    return isinstance(reply, list) and reply[:2] == [kind, channel]
