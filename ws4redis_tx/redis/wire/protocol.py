"""The protocol of Redis: commands, and pub/sub. Only this module knows txredisapi.

Its protocol classes are used, and not its factories: those reconnect, but neither subscribe again
nor survive an error at log-in.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import hiredis
from twisted.internet import tcp
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.scheduling.immediate_writer import immediate_writer


def _import_txredisapi() -> Any:
    """It imports TLS for its factories. Its protocol classes do not need that, and a
    sub-interpreter, such as mod_wsgi's default one, may be unable to import it.
    """
    try:
        import txredisapi
    except ImportError:
        stand_ins: dict[str, Any] = {name: ModuleType(name) for name in _TLS}
        for name, stand_in in stand_ins.items():
            setattr(stand_in, _TLS[name], object)
        sys.modules.update(stand_ins)
        try:
            import txredisapi
        finally:
            for name in stand_ins:
                del sys.modules[name]
    return txredisapi


# Modules that txredisapi imports, and the name that it needs of each while it is imported.
_TLS = {
    "twisted.internet.ssl": "ClientContextFactory",
    "twisted.protocols.tls": "TLSMemoryBIOFactory",
}

txredisapi = _import_txredisapi()

Command = tuple[bytes | str | int, ...]
ResponseError = txredisapi.ResponseError
LOST = txredisapi.ConnectionError
_NO_MORE = object()

_log = Logger()


class _InStep(txredisapi.RedisProtocol):  # type: ignore[misc, name-defined]
    """Bytes stay bytes. When Redis sends something that is no reply, or a reply that nothing asked
    for, the connection is dropped: later replies could be taken for answers to something else.
    """

    lost: Failure | None = None
    """Why the connection was lost; the failures of those who waited do not say it."""

    _in_step = True

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)
        # Not txredisapi's own, which takes a reply that is false for the end of the data.
        self._replies = hiredis.Reader(replyError=ResponseError, notEnoughData=_NO_MORE)

    def makeConnection(self, transport: Any) -> None:
        if isinstance(transport, tcp.Connection) and transport.protocol is not self:
            # The data need not go through the wrappers of endpoint and ClientService.
            transport.protocol.dataReceived = self.dataReceived  # type: ignore[method-assign]
        super().makeConnection(transport)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        replies = self._replies
        if self._in_step:
            replies.feed(data)
        while self._in_step:
            try:
                reply = replies.gets()
            except Exception:  # also TypeError, for a map whose key is a list
                self._out_of_step()
                return
            if reply is _NO_MORE:
                return
            self.replyReceived(reply)

    def _out_of_step(self) -> None:
        if self._in_step:
            self._in_step = False
            _log.error("Redis sent an answer that nothing asked for; connecting anew.")
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason
        super().connectionLost(reason)


class CommandProtocol(_InStep):
    """Commands and their answers, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: deque[_Asked] = deque()

    def connectionMade(self) -> Any:
        self._writer = immediate_writer(self.transport)
        return super().connectionMade()

    def execute_commands(self, commands: Sequence[Command]) -> Deferred[list[Any]]:
        """Send all in one write. Fire with all their answers; errors are among them."""
        if not self.connected:
            return fail(LOST("Not connected"))
        data = b"".join(map(_packed, commands))  # raises before an answer is waited for
        asked = _Asked(len(commands))
        self._asked.append(asked)
        self._writer.write(data)
        return asked.answered

    def execute_command(self, *command: Any) -> Deferred[Any]:
        """Fire with the answer, or fail with it. In place of txredisapi's own, for its AUTH and
        SELECT too.
        """
        return self.execute_commands([command]).addCallback(_only)

    def replyReceived(self, reply: Any) -> None:
        if not self._asked:
            self._out_of_step()
            return
        asked = self._asked[0]
        asked.answers.append(reply)
        if len(asked.answers) == asked.number:
            self._asked.popleft().answered.callback(asked.answers)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        lost, self._asked = self._asked, deque()
        for asked in lost:
            asked.answered.errback(LOST("Lost connection"))


class _Asked:
    """Commands that were sent together."""

    __slots__ = ("answered", "answers", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.answers: list[Any] = []
        self.answered: Deferred[list[Any]] = Deferred()


# Its types name tuples of one element alone.
_packed: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]


def _only(answers: list[Any]) -> Any:
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer


class PubSubProtocol(_InStep):
    """Subscriptions, their acknowledgements and messages, in the order Redis sent them.

    ``on_messages`` gets the messages of one read, as (channel, payload) pairs. An acknowledgement
    or PONG fires after every message that came before it was handed over.
    """

    def __init__(self, on_messages: Callable[[list[tuple[bytes, bytes]]], None]) -> None:
        super().__init__()
        self._on_messages = on_messages
        self._expected: deque[tuple[bytes, bytes | None, Deferred[None]]] = deque()
        self.reads = 0
        """How often something has arrived."""

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
        # As the base's, but a message costs no call.
        self.reads += 1
        messages: list[tuple[bytes, bytes]] = []
        replies = self._replies
        if self._in_step:
            replies.feed(data)
        while self._in_step:
            try:
                reply = replies.gets()
            except Exception:
                self._out_of_step()
                break
            if (
                type(reply) is list
                and len(reply) == 3
                and reply[0] == b"message"
                and type(reply[1]) is type(reply[2]) is bytes
            ):
                messages.append((reply[1], reply[2]))
            elif reply is _NO_MORE:
                break
            else:
                if messages:
                    self._on_messages(messages)
                    messages = []
                self.replyReceived(reply)
        if messages:
            self._on_messages(messages)

    def replyReceived(self, reply: Any) -> None:
        if self.replyQueue.waiting:  # AUTH and SELECT, before anything else; also if that fails
            self.replyQueue.put(reply)
        else:
            self._answered(reply)

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

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        expected, self._expected = self._expected, deque()
        for _, _, answered in expected:
            answered.errback(LOST("Lost connection"))


def _matches(reply: Any, kind: bytes, channel: bytes | None) -> bool:
    if kind == b"pong":  # a status while nothing is subscribed, then a list
        return reply == b"PONG" or (isinstance(reply, list) and reply[:1] == [kind])
    return isinstance(reply, list) and reply[:2] == [kind, channel]
