"""A TCP proxy that cuts off connections where a test says."""

from __future__ import annotations

from collections.abc import Callable
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.trial.unittest import TestCase

HERE = "tcp:0:interface=127.0.0.1"
REQUEST = b"GET /ws/"


class CuttingProxy(Factory):
    """Passes connections on to a port of this host. The answer to each request for events is cut
    off after the next number of bytes in ``cuts``, until there are none left.
    """

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.target = port
        self.cuts = cuts
        self.requests: list[bytes] = []
        """All requests for events."""
        self.answers = b""
        """All that was passed on of the answers to these."""
        self.spared: Callable[[bytes], bool] = lambda passed: False
        """Whether not to cut where an answer ends in these bytes, but one byte earlier."""
        self.open: set[Protocol] = set()
        self.narrow = False
        """Whether the system keeps little of what the server sends, and the proxy has not read."""
        self.swallowing = False
        """Whether a new connection is accepted, and nothing that is sent over it arrives."""

    def buildProtocol(self, address: Any) -> Protocol:
        return _Near(self)

    def swallow(self) -> None:
        """Let nothing arrive any more over the connections of now. When one side ends its
        connection, the other side does not hear of it.
        """
        self.swallowing = True
        for each in self.open:
            if isinstance(each, _Near):
                each.swallowed = True

    def stall(self) -> None:
        """Read nothing from the server, as a client does that cannot keep up."""
        for each in self.open:
            if isinstance(each, _Far):
                each.transport.pauseProducing()

    def flow_again(self) -> None:
        for each in self.open:
            if isinstance(each, _Far):
                each.transport.resumeProducing()

    def pass_again(self) -> None:
        """Pass new connections on. What was swallowed is lost."""
        self.swallowing = False

    def cut(self) -> None:
        """Cut off all answers with events."""
        for each in tuple(self.open):
            if isinstance(each, _Near) and each.events:
                each.transport.abortConnection()

    def cut_all(self) -> None:
        """Cut off every connection."""
        for each in tuple(self.open):
            each.transport.abortConnection()

    def start(self, test: TestCase) -> Any:
        """Fire with the port."""

        def stop() -> Any:
            self.cut_all()
            return port.stopListening()

        def started(listening: Any) -> int:
            nonlocal port
            port = listening
            test.addCleanup(stop)
            number: int = port.getHost().port
            return number

        port: Any = None
        return serverFromString(reactor, HERE).listen(self).addCallback(started)


class _Near(Protocol):
    """The client's side."""

    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.before = b""
        self.far: _Far | None = None
        self.lost = False
        self.events = False
        self.left: int | None = None
        """The number of bytes until the cut."""
        self.answered = False
        self.swallowed = proxy.swallowing

    def connectionMade(self) -> None:
        self.proxy.open.add(self)
        self.transport.setTcpNoDelay(True)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.target)
        connecting = connectProtocol(endpoint, _Far(self))
        connecting.addErrback(lambda failure: self.transport.abortConnection())

    def dataReceived(self, data: bytes) -> None:
        if self.swallowed:
            return
        if data.startswith(REQUEST):
            self.proxy.requests.append(data)
            self.left = self.proxy.cuts.pop() if self.proxy.cuts else None
            self.answered = False
            self.events = True
        if self.far is None:
            self.before += data
        else:
            self.far.transport.write(data)

    def answer(self, data: bytes) -> None:
        if self.swallowed:
            return
        if self.left is None or len(data) < self.left:
            if self.left is not None:
                self.left -= len(data)
            self.answered = True
            self.transport.write(data)
            if self.events:
                self.proxy.answers += data
            return
        assert self.far is not None
        end = self.left - 1 if self.proxy.spared(data[: self.left]) else self.left
        self.transport.write(data[:end])
        self.far.transport.abortConnection()
        # A client sees an end, or an error and perhaps less than was sent. Browsers take an end
        # within the head for the end of the head.
        if self.answered and len(self.proxy.cuts) % 2:
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.lost = True
        self.proxy.open.discard(self)
        if self.far is not None and not self.swallowed:
            self.far.transport.abortConnection()


class _Far(Protocol):
    """The server's side."""

    def __init__(self, near: _Near) -> None:
        self.near = near

    def connectionMade(self) -> None:
        self.near.proxy.open.add(self)
        if self.near.proxy.narrow:
            self.transport.getHandle().setsockopt(SOL_SOCKET, SO_RCVBUF, 32_768)
        if self.near.lost and not self.near.swallowed:
            self.transport.abortConnection()
            return
        self.near.far = self
        self.transport.write(self.near.before)

    def dataReceived(self, data: bytes) -> None:
        if not self.near.lost:
            self.near.answer(data)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.near.proxy.open.discard(self)
        if not self.near.lost and not self.near.swallowed:
            self.near.transport.loseConnection()
