"""Under load: no connect among 400 sees a gap or a duplicate, and thousands of websockets that come
and go leave nothing.
"""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from tests.support import TIMEOUT, ServerTestCase, handshake_bytes, open_websocket
from tests.support.sizes import CYCLES
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.testing import client_frame

MESSAGES_A_SECOND = 200
CLOSE = client_frame(8, (1000).to_bytes(2, "big"))
PING = b"\x89\x00"
CLOSED = b"\x88\x02\x03\xe8"


class Wire(Protocol):
    """A websocket client that costs next to nothing: bytes out, bytes in.

    ``opened`` fires with the 101, ``ended`` with all that came after it.
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


def our_objects() -> Counter[str]:
    """How many objects there are of each class of ours, and of what connections are made of."""
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
        """Connect that often while sequence numbers are published, and follow each stream."""
        publisher = RedisBroker(self.redis.address, "", reactor)
        publisher.startService()
        self.addCleanup(publisher.stopService)
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
        # Once nobody publishes any more, what is persisted is all that there is.
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
        # Of what was there before, only the last is persisted.
        self.assertGreaterEqual(stream[0], acknowledged)
        # What is published from the open on arrives, so none can begin later than that.
        self.assertLessEqual(stream[0], sent + 1)
        return stream + [int(message) for message in client.received.pending]

    # Opening and closing

    @inlineCallbacks
    def assert_cycles_leave_nothing(self, cycles: int, at_once: int = 200) -> Any:
        own = sorted(self.redis.command("PUBSUB", "CHANNELS"))  # the server's, no websocket's
        yield self.cycle(at_once)  # what is made once is made
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
        """Open and end that many websockets; fire when the server is rid of them."""
        yield gatherResults([self.open_and_end(i) for i in range(at_once)], consumeErrors=True)
        yield self.service.factory.broker.fence()
        while self.service.factory._websockets:
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


class LoadTests(LoadTestCase):
    timeout = 120

    @inlineCallbacks
    def test_400_connects_under_200_messages_a_second_see_no_gap_and_no_duplicate(self) -> Any:
        yield self.start_server()
        yield self.connect_under_load(400)

    @inlineCallbacks
    def test_open_close_cycles_leave_no_object_no_subscription_no_connection(self) -> Any:
        yield self.start_server()
        yield self.assert_cycles_leave_nothing(CYCLES)


class OwnObjectsTests(SynchronousTestCase):
    """That a leak would be seen at all."""

    def test_a_kept_object_of_ours_is_counted(self) -> None:
        before = our_objects()
        kept = Wire()
        self.assertEqual((our_objects() - before)["Wire"], 1)
        self.assertEqual((our_objects() - before)["Deferred"], 2)
        del kept
        self.assertEqual(our_objects() - before, Counter())
