"""Shared by the security tests: a site under attack, and the connections that attack it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater

from tests.support.clients import CLOSE
from tests.support.sites import ContractTestCase


class SecurityTestCase(ContractTestCase):
    @inlineCallbacks
    def john(self) -> Any:
        """Fire with the Cookie header of a logged-in browser."""
        cookies = yield self.log_in("john")
        return f"sessionid={cookies['sessionid']}"

    def assert_nothing_was_had(self) -> None:
        self.assertEqual((self.channels(), self.keys()), (set(), set()))

    @inlineCallbacks
    def gone(self, service: Any) -> Any:
        """Fire when no websocket is left, and Redis knows it."""
        while service.factory.session_server.sessions:
            yield deferLater(reactor, 0)
        yield service.factory.broker.fence()

    @inlineCallbacks
    def drained(self, service: Any) -> Any:
        """Fire when the authorizer's threads have handed over all results."""
        while service.factory.session_server.authorizer._lookups.outstanding:
            yield deferLater(reactor, 0)
        yield service.factory.broker.fence()


class Conversation(Protocol):
    """``ended`` fires with all bytes that came back, when the server ends the connection."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.ended.callback(self.received)


class Visit(Conversation):
    """Sends a handshake, and leaves at once if it is let in."""

    _let_in = False
    negotiated: bytes | None = None

    def __init__(self, handshake: bytes) -> None:
        super().__init__()
        self._handshake = handshake

    def connectionMade(self) -> None:
        self.transport.write(self._handshake)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if not self._let_in and self.received.startswith(b"HTTP/1.1 101 "):
            self._let_in = True
            self.negotiated = getattr(self.transport, "negotiatedProtocol", None)
            self.transport.write(CLOSE)


def connect(port: int, protocol: Protocol) -> Deferred[Any]:
    return connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), protocol)


def raising(error: BaseException) -> Callable[..., Any]:
    def callback(*_: Any) -> Any:
        raise error

    return callback
