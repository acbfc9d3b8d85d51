"""The factory for the websockets of a server, with Autobahn's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolNegotiationFactory
from zope.interface import implementer

from ws4redis_tx.core.interfaces import IAuthorizer
from ws4redis_tx.sessions.server import Server
from ws4redis_tx.websocket.shared_attributes import sharing
from ws4redis_tx.websocket.transport import WebSocketTransport

CLOSE_TIMEOUT = 1
"""Seconds from our close frame to the client's."""


@implementer(IProtocolNegotiationFactory)
class WebSocketFactory(WebSocketServerFactory):
    """Makes the websockets of one server. Give it to any stream endpoint."""

    protocol = WebSocketTransport
    noisy = False

    def __init__(self, server: Server) -> None:
        super().__init__(server="", reactor=server.reactor)
        self.setProtocolOptions(
            failByDrop=False,
            echoCloseCodeReason=True,
            openHandshakeTimeout=0,  # the server's `timeouts` replace it
            closeHandshakeTimeout=CLOSE_TIMEOUT,
            maxMessagePayloadSize=server.config.max_message_size,
            maxFramePayloadSize=server.config.max_message_size,
        )
        self._batched_timer = _Timer(server.reactor)
        self.session_server = server
        self.config = server.config
        self.broker = server.broker
        self.reactor = server.reactor

    def setProtocolOptions(self, **options: Any) -> None:  # type: ignore[override]
        super().setProtocolOptions(**options)
        self._shared: Any = None

    def acceptableProtocols(self) -> list[bytes]:
        """For clients that speak TLS and offer ALPN, as browsers do."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: object) -> WebSocketTransport:
        if self._shared is None or self._shared.__base__ is not self.protocol:
            self._shared = sharing(self.protocol, self)
        websocket: WebSocketTransport = self._shared()
        return websocket

    @property
    def authorizer(self) -> IAuthorizer:
        return self.session_server.authorizer

    @authorizer.setter
    def authorizer(self, authorizer: IAuthorizer) -> None:
        self.session_server.use(authorizer)

    def open_up(self) -> None:
        """Let clients in, after a ``drain``."""
        self.session_server.open_up()

    def drain(self, code: int, seconds: float = 0.0) -> Deferred[None]:
        """Refuse new websockets, and close the open ones with ``code``, spread over ``seconds``.
        Fire when all are gone and the hooks have finished.

        A client that neither answers nor reads the close frame is dropped after 3 s at most.
        """
        return self.session_server.drain(code, seconds)

    def abort(self) -> None:
        """End all connections at once, without a close handshake."""
        self.session_server.abort()


class _Timer:
    """Autobahn's timers on our reactor. Its own use the global one, and fire a second too early."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def call_later(self, delay: float, function: Callable[[], object]) -> Any:
        return self._reactor.callLater(delay, function)
