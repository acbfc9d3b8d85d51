"""A response that goes on until its connection ends, in place of a websocket."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from ws4redis_tx.core.interfaces import IWriter
from ws4redis_tx.scheduling.immediate_writer import unsent_pieces
from ws4redis_tx.sessions.interfaces import Ending
from ws4redis_tx.sessions.session import Session

USER_TIMEOUT = 30.0
"""Seconds after which the system ends a connection whose client does not acknowledge anything. A
client that only listens has no pong.
"""

DROP_TIMEOUT = 2.0
"""Seconds after the end of a response, until its connection is aborted."""

_NO_CODE, _ABNORMAL = 1005, 1006


@implementer(IPushProducer)
class Response(Protocol):
    """The part of an ``ITransport`` that all responses have in common. Takes over the connection of
    a session whose request asks for one.
    """

    silent = False
    transport: Any

    def __init__(self, session: Session) -> None:
        self.session = session
        before = session.transport
        self.writer: IWriter = before.writer
        self.transport = connection = before.connection
        self.secure = before.secure
        self.peer_address = before.peer_address
        self.request_begun = True
        self._accepted = False
        self._closing: tuple[int, str] | None = None
        self._drop_timer: Any = None
        if isinstance(connection, ProtocolWrapper):
            connection.wrappedProtocol = self
        elif isinstance(getattr(connection, "protocol", None), ProtocolWrapper):
            connection.protocol.wrappedProtocol = self
        else:
            connection.protocol = self

    @property
    def connection(self) -> Any:
        return self.transport

    @property
    def incoming(self) -> int:
        return 0

    @property
    def outgoing(self) -> Sequence[bytes]:
        return unsent_pieces(self.transport)

    def begin(self, head: bytes) -> None:
        """Send the head of a response without end."""
        self._accepted = True
        self.writer.write(head)
        _bound_silence(self.transport)
        self.transport.registerProducer(self, True)

    def answer_close(self) -> None:
        """A client has no other way to close than to leave."""

    def drop(self) -> None:
        if self._drop_timer is None:
            if self._accepted:
                self.transport.unregisterProducer()  # TLS would wait for its end
            self._drop_timer = self.session.server.reactor.callLater(DROP_TIMEOUT, self.abort)
            self.transport.loseConnection()

    def abort(self) -> None:
        self.transport.abortConnection()

    def pause_reading(self) -> None:
        """Nothing is read but the end."""

    def resume_reading(self) -> None:
        """Nothing is read but the end."""

    def take_step(self) -> bool:
        return False

    def drop_if_silent(self) -> None:
        """The system does, after ``USER_TIMEOUT``."""

    # Called by Twisted

    def dataReceived(self, data: bytes) -> None:
        self.abort()  # nothing may follow the request

    def pauseProducing(self) -> None:
        self.session.pause()

    def resumeProducing(self) -> None:
        self.session.resume()

    def stopProducing(self) -> None:
        self.session.feed.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._drop_timer is not None and self._drop_timer.active():
            self._drop_timer.cancel()
        clean = reason.check(ConnectionDone) is not None
        code, text = self._closing or (_NO_CODE if clean else _ABNORMAL, "")
        self.session.end(Ending(code, text, self._closing is not None, clean))


def _bound_silence(transport: Any) -> None:
    if ITCPTransport.providedBy(transport) and hasattr(socket, "TCP_USER_TIMEOUT"):
        if ISSLTransport.providedBy(transport):
            transport = getattr(transport, "transport", transport)
        handle = transport.getHandle()
        milliseconds = int(USER_TIMEOUT * 1000)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
