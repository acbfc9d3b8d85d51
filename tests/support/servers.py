"""A server in this process, with a real Redis; alone or under load."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, inlineCallbacks
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import TestCase

from tests.support.brokers import start_broker
from tests.support.clients import CLOSE, Client, open_websocket, open_wire
from tests.support.redis import shared_redis
from tests.support.wires import handshake_bytes
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.service import WebSocketService, make_service

LISTEN = ("tcp:0:interface=127.0.0.1",)


def later(value: Any = None) -> Deferred[Any]:
    """A Deferred that fires in a later turn of the reactor."""
    return deferLater(reactor, 0, lambda: value)


class ServerTestCase(TestCase):
    """A server in this process, on a real socket, with a real Redis."""

    timeout = 60

    def setUp(self) -> None:
        self.redis = shared_redis()

    @inlineCallbacks
    def start_server(self, config: ServerConfig | None = None, **options: Any) -> Any:
        """Fire with a service that is ready, at ``self.url`` and ``self.port``."""
        config = config or ServerConfig(redis=self.redis.address, listen=LISTEN, **options)
        service = make_service(config)
        self.launch(service)
        yield service.when_ready()
        return service

    def launch(self, service: WebSocketService) -> None:
        service.startService()
        self.addCleanup(service.stopService)
        self.port = service.ports[0].getHost().port
        self.url = f"ws://127.0.0.1:{self.port}/ws/"

    @inlineCallbacks
    def open(self, path: str, **options: Any) -> Any:
        """Fire with an open client; the test's clean-up closes it."""
        client = yield open_websocket(self.url + path, **options)
        self.addCleanup(self._close, client)
        return client

    def _close(self, client: Client) -> Deferred[Any]:
        client.sendClose(1000)
        return client.closed


MESSAGES_A_SECOND = 200
PING = b"\x89\x00"
CLOSED = b"\x88\x02\x03\xe8"


def our_objects() -> Counter[str]:
    """The number of objects of each class of ours, of Deferreds and of protocols."""
    gc.collect()
    return Counter(
        kind.__qualname__
        for kind in map(type, gc.get_objects())
        if str(kind.__module__).startswith("ws4redis_tx") or issubclass(kind, (Deferred, Protocol))
    )


class LoadTestCase(ServerTestCase):
    service: Any

    def setUp(self) -> None:
        super().setUp()
        self.published: list[Deferred[None]] = []

    @inlineCallbacks
    def start_server(self, *args: Any, **options: Any) -> Any:
        self.service = yield super().start_server(*args, **options)
        return self.service

    # Connecting while a publisher is busy

    @inlineCallbacks
    def connect_under_load(self, connects: int) -> Any:
        """Connect that many times while sequence numbers are published, and check each stream."""
        publisher = start_broker(self, self.redis.address)
        yield publisher.when_available()
        published = self.published
        self.acknowledged = 0

        def acknowledge(_: int, number: int) -> None:
            self.acknowledged = number

        def publish(count: int) -> None:
            for _ in range(count):
                number = len(published) + 1
                publishing = publisher.publish([b"broadcast:load"], b"%d" % number, 60)
                published.append(publishing.addCallback(acknowledge, number))

        call = LoopingCall.withCount(publish)
        stopped = call.start(1 / MESSAGES_A_SECOND)
        self.addCleanup(lambda: call.running and call.stop())
        some_at_once = DeferredSemaphore(40)
        started = reactor.seconds()
        streams = yield gatherResults(
            [some_at_once.run(self.follow) for _ in range(connects)], consumeErrors=True
        )
        seconds = reactor.seconds() - started
        call.stop()
        yield stopped
        yield gatherResults(published)
        for stream in streams:
            self.assertEqual(stream, list(range(stream[0], stream[0] + len(stream))))
        self.assertGreater(len(published), 0.8 * MESSAGES_A_SECOND * seconds)
        # Nobody publishes any more, so a newcomer gets only the persisted message.
        late = yield self.open("load?subscribe-broadcast")
        self.assertEqual((yield late.next()), str(len(published)))

    @inlineCallbacks
    def follow(self) -> Any:
        """Fire with the first sequence numbers that a new connection gets."""
        acknowledged = self.acknowledged
        client = yield open_websocket(self.url + "load?subscribe-broadcast")
        sent = len(self.published)
        stream = [int(message) for message in (yield client.take(25))]
        client.sendClose(1000)
        yield client.closed
        # Of the earlier messages, only the last is persisted.
        self.assertGreaterEqual(stream[0], acknowledged)
        # Everything published after the open arrives, so no stream can begin later.
        self.assertLessEqual(stream[0], sent + 1)
        return stream + [int(message) for message in client.received.pending]

    # Opening and closing

    @inlineCallbacks
    def assert_cycles_leave_nothing(self, cycles: int, at_once: int = 200) -> Any:
        own = sorted(
            self.redis.command("PUBSUB", "CHANNELS")
        )  # the server's own, not a websocket's
        yield self.cycle(at_once)  # warm up: some objects are made once
        before = our_objects()
        for _ in range(cycles // at_once):
            yield self.cycle(at_once)
            self.assertLessEqual(self.redis.connections(), 2)
        grown = our_objects() - before
        self.assertEqual(grown, Counter(), f"left over after {cycles} cycles")
        self.assertEqual(sorted(self.redis.command("PUBSUB", "CHANNELS")), own)
        self.assertEqual(self.redis.connections(), 2)

    @inlineCallbacks
    def cycle(self, at_once: int) -> Any:
        """Open and close that many websockets. Fire when the server has released them."""
        yield gatherResults([self.open_and_end(i) for i in range(at_once)], consumeErrors=True)
        yield self.service.factory.broker.fence()
        while self.service.factory.session_server.sessions:
            yield self.service.factory.broker.fence()
        yield self.service.factory.broker.fence()

    @inlineCallbacks
    def open_and_end(self, i: int) -> Any:
        target = f"/ws/f{i % 50}?subscribe-broadcast"
        host = f"127.0.0.1:{self.port}"
        wire = yield open_wire(self.port, handshake_bytes(target, Host=host))
        if i % 10:
            wire.transport.write(CLOSE)
        else:
            wire.transport.abortConnection()
        rest = (yield wire.ended).replace(PING, b"")  # one may be due at once
        self.assertEqual(rest, CLOSED if i % 10 else b"")
