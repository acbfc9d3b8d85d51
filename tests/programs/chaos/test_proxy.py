"""The proxy makes the faults that it promises. Otherwise, the outage tests would prove nothing."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.trial.unittest import TestCase

from tests.programs.chaos.proxy import COMMANDS, FROM_REDIS, PUBSUB, TO_REDIS, Proxy
from tests.support import TIMEOUT


class Peer(Protocol):
    """Collects the bytes that arrive; fires when enough have come, or at the end."""

    def __init__(self) -> None:
        self.data = b""
        self.made: Deferred[Peer] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._waiting: list[tuple[bytes, Deferred[None]]] = []

    def connectionMade(self) -> None:
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for entry in tuple(self._waiting):
            if self.data.endswith(entry[0]):
                self._waiting.remove(entry)
                entry[1].callback(None)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.gone.callback(None)

    def until(self, end: bytes) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.append((end, waiting))
        self.dataReceived(b"")
        return waiting.addTimeout(TIMEOUT, reactor)


class ProxyTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.accepted: list[Peer] = []
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._build
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.proxy = Proxy(listening.getHost().port)
        self.addCleanup(self._all_gone)
        self.addCleanup(self.proxy.stop)
        self._coming: list[Deferred[Peer]] = []

    def _build(self, address: Any) -> Peer:
        peer = Peer()
        self.accepted.append(peer)
        peer.made.chainDeferred(self._coming.pop(0))
        return peer

    def _all_gone(self) -> Deferred[Any]:
        return DeferredList([peer.gone for peer in self.accepted])

    @inlineCallbacks
    def connect(self) -> Any:
        """Fire with both ends of a new connection through the proxy."""
        coming: Deferred[Peer] = Deferred()
        self._coming.append(coming)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        client = yield connectProtocol(endpoint, Peer())
        server = yield coming.addTimeout(TIMEOUT, reactor)
        return client, server

    @inlineCallbacks
    def check_open(self, client: Peer, server: Peer) -> Any:
        client.transport.write(b"there")
        yield server.until(b"there")
        server.transport.write(b"back")
        yield client.until(b"back")

    @inlineCallbacks
    def test_it_passes_on_bytes_both_ways_and_the_end_of_either_side(self) -> Any:
        for first in (0, 1):
            ends = yield self.connect()
            yield self.check_open(*ends)
            ends[first].transport.loseConnection()
            yield ends[1 - first].gone.addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def test_cut_ends_all_connections_and_refuse_lets_no_new_one_in(self) -> Any:
        client, server = yield self.connect()
        yield self.proxy.refuse()
        yield self.check_open(client, server)
        self.proxy.cut()
        yield DeferredList([client.gone, server.gone])
        with self.assertRaises(ConnectionRefusedError):
            yield self.connect()
        self._coming.clear()
        self.proxy.accept()
        yield self.check_open(*(yield self.connect()))

    @inlineCallbacks
    def test_delay_keeps_the_order_also_when_it_ends(self) -> Any:
        client, server = yield self.connect()
        self.proxy.delay(0.05)
        pipe = self.proxy.links[0].to_redis
        started = reactor.seconds()
        for piece in (b"1", b"2", b"3"):
            pipe.put(piece)
        self.proxy.delay(0)
        pipe.put(b"4")
        yield server.until(b"1234")
        self.assertGreaterEqual(reactor.seconds() - started, 0.05)
        yield self.check_open(client, server)

    @inlineCallbacks
    def test_slow_everything_arrives_at_that_rate_and_the_sender_has_to_wait(self) -> Any:
        client, server = yield self.connect()
        self.proxy.slow_down(10_000_000)
        started = reactor.seconds()
        server.transport.write(b"x" * 3_000_000 + b"end")
        yield client.until(b"end")
        self.assertGreaterEqual(reactor.seconds() - started, 0.3)
        self.assertEqual(len(client.data), 3_000_003)

    @inlineCallbacks
    def test_slow_a_connection_that_waits_goes_on_when_the_link_is_fast_again(self) -> Any:
        client, server = yield self.connect()
        self.proxy.slow_down(100)
        client.transport.write(b"x" * 10_000)
        late, late_server = yield self.connect()
        late.transport.write(b"y")
        yield late_server.until(b"y")
        self.assertEqual(server.data, b"")
        self.proxy.slow_down(None)
        yield server.until(b"x" * 10_000)
        yield self.check_open(client, server)

    @inlineCallbacks
    def test_frozen_nothing_passes_and_nothing_ends_and_a_new_connection_is_no_better(
        self,
    ) -> Any:
        client, server = yield self.connect()
        self.proxy.freeze()
        _, late_server = yield self.connect()
        for end in (client, server):
            end.transport.write(b"swallowed")
        self.proxy.links[1].to_redis.put(b"swallowed")
        client.transport.loseConnection()
        yield client.gone
        self.proxy.thaw()
        yield server.gone.addTimeout(TIMEOUT, reactor)
        yield self.check_open(*(yield self.connect()))
        self.assertEqual([client.data, server.data, late_server.data], [b"", b"", b""])
        self.assertFalse(late_server.gone.called)

    @inlineCallbacks
    def test_one_direction_of_one_kind_is_frozen_and_the_rest_goes_on(self) -> Any:
        commands = yield self.connect()
        subscriber, redis = yield self.connect()
        subscriber.transport.write(b"SUBSCRIBE")
        yield redis.until(b"SUBSCRIBE")
        self.assertEqual([link.kind for link in self.proxy.links], [COMMANDS, PUBSUB])
        self.proxy.freeze(kinds=(PUBSUB,), directions=(FROM_REDIS,))
        redis.transport.write(b"swallowed")
        subscriber.transport.write(b" more")
        yield redis.until(b" more")
        yield self.check_open(*commands)
        self.assertEqual(subscriber.data, b"")

    @inlineCallbacks
    def test_half_closed_one_side_hears_the_end_while_it_may_still_speak(self) -> Any:
        client, server = yield self.connect()
        self.proxy.half_close(TO_REDIS)
        yield server.gone.addTimeout(TIMEOUT, reactor)
        yield client.gone.addTimeout(TIMEOUT, reactor)
