"""Websocket clients on real sockets."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponseAccept
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone

from tests.support import TIMEOUT
from ws4redis_tx.testing import client_frame


class Client(WebSocketClientProtocol):
    """A websocket client over a real socket, independent of the server's implementation."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[Client] = Deferred()
        self.received: DeferredQueue[str | bytes] = DeferredQueue()
        self.closed: Deferred[int | None] = Deferred()
        self.selected_protocol: str | None = None
        self.compressed: list[bool] = []
        """Of each message that came, whether it was compressed."""

    def onConnect(self, response: Any) -> None:
        self.selected_protocol = response.protocol

    def onOpen(self) -> None:
        self.opened.callback(self)

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)
        self.compressed.append(self._isMessageCompressed)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.received.put(payload if isBinary else payload.decode())

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if not self.opened.called:
            self.opened.errback(ConnectionError(reason))
        self.closed.callback(code)

    def next(self) -> Deferred[str | bytes]:
        return self.received.get().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def take(self, count: int) -> Any:
        messages = []
        for _ in range(count):
            messages.append((yield self.next()))
        return messages


@inlineCallbacks
def open_websocket(
    url: str,
    *,
    cookies: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    protocols: list[str] | None = None,
    origin: str | None = None,
    tls: Any = None,
    compression: PerMessageDeflateOffer | None = None,
    address: str | None = None,
) -> Any:
    """Fire with an open ``Client``; ``wss`` needs the options of its ``tls``. It connects to
    ``address``, by default to the URL's host.
    """
    fields = dict(headers or {})
    if cookies:
        fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    factory = WebSocketClientFactory(
        url, headers=fields, protocols=protocols, origin=origin, reactor=reactor
    )
    factory.noisy = False
    factory.setProtocolOptions(autoPingInterval=0, failByDrop=False)
    if compression is not None:
        factory.setProtocolOptions(
            perMessageCompressionOffers=[compression],
            perMessageCompressionAccept=PerMessageDeflateResponseAccept,
        )
    factory.protocol = Client
    endpoint: Any = HostnameEndpoint(reactor, address or factory.host, factory.port)
    if tls is not None:
        endpoint = wrapClientTLS(tls, endpoint)
    client = yield endpoint.connect(factory)
    yield client.opened.addTimeout(TIMEOUT, reactor)
    return client


class _Collector(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.done.callback(self.data)


@inlineCallbacks
def exchange(port: int, data: bytes) -> Any:
    """Send raw bytes; fire with all bytes that come back before the server ends the connection."""
    collector = yield connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), _Collector())
    collector.transport.write(data)
    return (yield collector.done.addTimeout(TIMEOUT, reactor))


CLOSE = client_frame(8, (1000).to_bytes(2, "big"))


class Wire(Protocol):
    """A cheap websocket client: bytes out, bytes in.

    ``opened`` fires with the 101, ``ended`` with all bytes after it.
    """

    def __init__(self) -> None:
        self.opened: Deferred[None] = Deferred()
        self.ended: Deferred[bytes] = Deferred()
        self._received: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._received.append(data)
        if not self.opened.called:
            head, end, rest = b"".join(self._received).partition(b"\r\n\r\n")
            if end:
                self._received = [rest]
                if head.startswith(b"HTTP/1.1 101 "):
                    self.opened.callback(None)
                else:
                    self.opened.errback(AssertionError(head))

    def connectionLost(self, reason: Any = connectionDone) -> None:
        received, self._received = b"".join(self._received), []
        self.ended.callback(received)


_wires = Factory.forProtocol(Wire)
_wires.noisy = False


@inlineCallbacks
def open_wire(port: int, handshake: bytes) -> Any:
    """Fire with a ``Wire`` that is open."""
    wire = yield TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(_wires)
    wire.transport.write(handshake)
    wire.ended.addTimeout(TIMEOUT, reactor)
    yield wire.opened.addTimeout(TIMEOUT, reactor)
    return wire


class Stream(Protocol):
    """A request whose response does not end. Fires ``begun`` at its first byte."""

    def __init__(self) -> None:
        self.begun: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if not self.begun.called:
            self.begun.callback(None)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.ended.callback(None)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
