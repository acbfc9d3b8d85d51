"""Bytes are sent at once or in their turn: none is lost, doubled or out of order, however little
the socket accepts.
"""

from __future__ import annotations

import socket
from typing import Any

from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import (
    HostnameEndpoint,
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from tests.support import TIMEOUT
from tests.support.certificates import make_certificate
from tests.support.clients import open_websocket
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.scheduling.immediate_writer import (
    discard_unsent,
    immediate_writer,
    unsent,
    unsent_pieces,
)
from ws4redis_tx.service import make_factory, make_resource
from ws4redis_tx.testing import MemoryBroker

CHUNKS = [b"%06d" % number * 100 for number in range(150)]


class Server(Protocol):
    def connectionMade(self) -> None:
        self.write = immediate_writer(self.transport).write
        self.lost: Deferred[None] = Deferred()
        self.factory.connected.callback(self)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.lost.callback(None)


class Reader(Protocol):
    """Reads only when it is told to."""

    def __init__(self) -> None:
        self.data = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.ended.callback(self.data)


@implementer(IPushProducer)
class Producer:
    """Counts the pauses that the transport asks for."""

    def __init__(self) -> None:
        self.pauses = 0
        self.resumed: Deferred[None] = Deferred()

    def pauseProducing(self) -> None:
        self.pauses += 1

    def resumeProducing(self) -> None:
        if not self.resumed.called:
            self.resumed.callback(None)

    def stopProducing(self) -> None:
        pass


def endpoint_for(options: Any = None) -> Any:
    """An endpoint on a free port; under TLS with the ``options`` of a certificate."""
    if options is None:
        return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    return SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")


class SocketTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def connect(self, options: Any = None, client_options: Any = None) -> Any:
        factory = Factory.forProtocol(Server)
        factory.noisy = False
        factory.connected = Deferred()
        port = yield endpoint_for(options).listen(factory)
        self.addCleanup(port.stopListening)
        client: Any = HostnameEndpoint(reactor, "localhost", port.getHost().port)
        if client_options is not None:
            client = wrapClientTLS(client_options, client)
        self.reader = yield connectProtocol(client, Reader())
        self.server = yield factory.connected
        return self.server

    @inlineCallbacks
    def connect_narrow(self) -> Any:
        """Connect with 4 KiB of buffer at either end, and a reader that does not read."""
        yield self.connect()
        self.server.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.reader.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.reader.transport.pauseProducing()

    @inlineCallbacks
    def end(self) -> Any:
        """End the connection and fire with everything that arrived."""
        self.server.transport.loseConnection()
        # Widen the buffer again: otherwise each 4 KiB would wait for a delayed acknowledgement.
        for end, name in ((self.server, socket.SO_SNDBUF), (self.reader, socket.SO_RCVBUF)):
            if end.transport.connected and hasattr(end.transport, "socket"):
                end.transport.socket.setsockopt(socket.SOL_SOCKET, name, 1 << 20)
        self.reader.transport.resumeProducing()
        data = yield self.reader.ended.addTimeout(TIMEOUT, reactor)
        yield self.server.lost.addTimeout(TIMEOUT, reactor)
        return data

    @inlineCallbacks
    def test_what_the_socket_takes_is_gone_when_it_returns(self) -> Any:
        yield self.connect()
        self.server.write(b"at once")
        self.assertEqual(self.server.transport.dataBuffer, b"")
        self.assertEqual(self.server.transport._tempDataBuffer, [])
        self.assertEqual((yield self.end()), b"at once")

    @inlineCallbacks
    def test_what_it_does_not_take_follows_in_order(self) -> Any:
        yield self.connect_narrow()
        for chunk in CHUNKS:
            self.server.write(chunk)
        self.assertEqual((yield self.end()), b"".join(CHUNKS))

    @inlineCallbacks
    def test_one_large_piece_is_taken_in_parts(self) -> Any:
        yield self.connect_narrow()
        self.server.write(b"".join(CHUNKS))
        self.assertEqual((yield self.end()), b"".join(CHUNKS))

    @inlineCallbacks
    def test_the_rest_of_a_large_piece_is_not_copied(self) -> Any:
        """Many clients that are sent the same message share its bytes while they do not read."""
        yield self.connect_narrow()
        producer = Producer()
        self.server.transport.registerProducer(producer, True)
        message = b"".join(CHUNKS)
        self.server.write(message)
        (rest,) = unsent_pieces(self.server.transport)
        self.assertIs(rest, message)
        self.assertEqual(producer.pauses, 1)
        self.server.transport.unregisterProducer()
        self.assertEqual((yield self.end()), message)

    @inlineCallbacks
    def test_nothing_is_kept_for_a_connection_that_was_lost(self) -> Any:
        yield self.connect_narrow()
        transport = self.server.transport
        for chunk in CHUNKS:
            self.server.write(chunk)
        self.reader.transport.abortConnection()
        yield self.server.lost.addTimeout(TIMEOUT, reactor)
        self.assertNotEqual(unsent_pieces(transport), [])
        discard_unsent(transport)
        self.assertEqual(unsent_pieces(transport), [])
        self.assertEqual(unsent(transport), 0)

    @inlineCallbacks
    def test_what_others_wrote_before_goes_first(self) -> Any:
        for narrow in (False, True):
            yield self.connect_narrow() if narrow else self.connect()
            for number, chunk in enumerate(CHUNKS):
                write = self.server.transport.write if number < 50 else self.server.write
                write(chunk)
            self.assertEqual((yield self.end()), b"".join(CHUNKS))

    @inlineCallbacks
    def test_it_is_at_once_again_when_nothing_waits(self) -> Any:
        yield self.connect_narrow()
        producer = Producer()
        self.server.transport.registerProducer(producer, True)
        while not producer.pauses:
            self.server.write(CHUNKS[0])
        self.reader.transport.resumeProducing()
        yield producer.resumed
        self.server.write(b"last")
        self.assertEqual(self.server.transport._tempDataBuffer, [])
        self.server.transport.unregisterProducer()
        self.assertTrue((yield self.end()).endswith(CHUNKS[0] + b"last"))

    @inlineCallbacks
    def test_a_producer_is_paused_when_much_waits_and_resumed_when_it_is_gone(self) -> Any:
        yield self.connect_narrow()
        producer = Producer()
        self.server.transport.registerProducer(producer, True)
        written = 0
        while not producer.pauses:
            self.server.write(CHUNKS[0])
            written += len(CHUNKS[0])
        self.assertEqual(producer.pauses, 1)
        self.reader.transport.resumeProducing()
        yield producer.resumed
        self.server.write(b"last")
        self.server.transport.unregisterProducer()
        data = yield self.end()
        self.assertEqual(data, CHUNKS[0] * (written // len(CHUNKS[0])) + b"last")

    @inlineCallbacks
    def test_writing_to_a_connection_that_is_over_does_nothing(self) -> Any:
        yield self.connect()
        self.reader.transport.abortConnection()
        yield self.reader.ended
        for chunk in CHUNKS[:10]:  # the kernel may still accept the first ones
            self.server.write(chunk)
        yield self.server.lost.addTimeout(TIMEOUT, reactor)
        self.server.write(b"after its end")

    @inlineCallbacks
    def test_on_a_connection_that_is_closing_it_still_goes_before_the_end(self) -> Any:
        yield self.connect_narrow()
        for chunk in CHUNKS:
            self.server.write(chunk)
        self.server.transport.loseConnection()
        self.server.write(b"x")  # as with the transport's own write: it is written if possible
        data = yield self.end()
        self.assertTrue(data.startswith(b"".join(CHUNKS)))

    @inlineCallbacks
    def test_under_tls_it_is_the_transports_own(self) -> Any:
        public, both = make_certificate(x509.DNSName("localhost"))
        yield self.connect(
            PrivateCertificate.loadPEM(both).options(),
            optionsForClientTLS("localhost", trustRoot=Certificate.loadPEM(public)),
        )
        self.assertEqual(self.server.write, self.server.transport.write)
        for chunk in CHUNKS:
            self.server.write(chunk)
        self.assertEqual((yield self.end()), b"".join(CHUNKS))


class SiteTests(TestCase):
    """A websocket in a ``Site``: the connection belonged to an HTTP server before."""

    timeout = 60

    @inlineCallbacks
    def open(self, scheme: str = "ws") -> Any:
        self.broker = MemoryBroker()
        self.factory = make_factory(ServerConfig(), broker=self.broker, reactor=reactor)
        root = Resource()
        root.putChild(b"ws", make_resource(self.factory))
        site = Site(root)
        site.noisy = False
        options = tls = None
        if scheme == "wss":
            public, both = make_certificate(x509.DNSName("localhost"))
            options = PrivateCertificate.loadPEM(both).options()
            tls = optionsForClientTLS("localhost", trustRoot=Certificate.loadPEM(public))
        port = yield endpoint_for(options).listen(site)
        self.addCleanup(port.stopListening)
        url = f"{scheme}://localhost:{port.getHost().port}/ws/x?subscribe-broadcast"
        client = yield open_websocket(url, tls=tls)
        self.addCleanup(lambda: self.factory.drain(1001))
        (session,) = self.factory.session_server.sessions
        return client, session.transport.transport

    @inlineCallbacks
    def check_that_a_slow_reader_gets_all(self, client: Any, transport: Any) -> Any:
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.transport.pauseProducing()
        for chunk in CHUNKS:
            self.broker.publish([b"broadcast:x"], chunk, 0)
        for end, name in ((transport, socket.SO_SNDBUF), (client.transport, socket.SO_RCVBUF)):
            end.socket.setsockopt(socket.SOL_SOCKET, name, 1 << 20)
        client.transport.resumeProducing()
        received = yield client.take(len(CHUNKS))
        self.assertEqual(received, [chunk.decode() for chunk in CHUNKS])

    @inlineCallbacks
    def test_it_is_sent_at_once(self) -> Any:
        client, transport = yield self.open()
        self.broker.publish([b"broadcast:x"], b"hello", 0)
        self.assertEqual((transport.dataBuffer, transport._tempDataBuffer), (b"", []))
        self.assertEqual((yield client.next()), "hello")

    @inlineCallbacks
    def test_a_slow_reader_gets_all_in_order(self) -> Any:
        yield self.check_that_a_slow_reader_gets_all(*(yield self.open()))

    @inlineCallbacks
    def test_under_tls_too(self) -> Any:
        client, transport = yield self.open("wss")
        yield self.check_that_a_slow_reader_gets_all(client, transport.transport)


class OtherTransportTests(SynchronousTestCase):
    def test_what_is_no_socket_is_written_to_by_itself(self) -> None:
        transport = StringTransport()
        immediate_writer(transport).write(b"hello")
        self.assertEqual(transport.value(), b"hello")
