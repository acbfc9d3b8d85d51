"""The cost of a handshake, counted and not timed, so that it is the same everywhere.

A higher count is a price: lower it again, or know the reason and raise the bound. If a count is
much lower than its bound, lower the bound.
"""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.support.calls import counted_calls
from tests.support.wires import handshake_bytes
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.testing import MemoryBroker, make_memory_factory

PEER = IPv4Address("TCP", "127.0.0.1", 1)

BROWSER: dict[str, str | None] = {
    "Pragma": "no-cache",
    "Cache-Control": "no-cache",
    "User-Agent": "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Origin": "http://localhost",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "de,en-US;q=0.7,en;q=0.3",
    "Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits",
}

# Calls of Python functions, from the connection to the live websocket, without the fake
# transport's. Autobahn's own handshake has about 800.
MOST_CALLS = 190
MOST_CALLS_FOR_A_VISITOR = 260
# Objects that the collector sees in an open websocket of a visitor with three subscriptions.
MOST_OBJECTS = 24


class Wire(StringTransport):
    """Accepts bytes, and sends none."""

    def __init__(self) -> None:
        super().__init__(peerAddress=PEER)


class PromptBroker(MemoryBroker):
    """Answers at once, so that the calls of the broker itself do not count."""

    def listen(self, channel: bytes, listener: Any) -> Deferred[None]:
        self.hub.add(channel, listener)
        return succeed(None)

    def get(self, channel: bytes) -> Deferred[Any]:
        return succeed(None)

    def fence(self, channels: Any = None) -> Deferred[None]:
        return succeed(None)


class Everybody:
    """An authorizer that sees another visitor with another session in each handshake."""

    def __init__(self) -> None:
        self._number = 0

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        self._number += 1
        name = str(self._number)
        identity = Identity(f"session {name}", f"user {name}", (), name)
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class HandshakeCostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.websockets: list[Any] = []

    def serve(self, authorizer: Any = None, target: str = "/ws/foobar?subscribe-broadcast") -> None:
        self.factory = make_memory_factory(
            ServerConfig(), broker=PromptBroker(), authorizer=authorizer, clock=Clock()
        )
        self.head = handshake_bytes(target, **BROWSER)
        for _ in range(3):
            self.open()  # warm up: some objects are made once

    def open(self) -> None:
        websocket: Any = self.factory.buildProtocol(PEER)
        websocket.makeConnection(Wire())
        websocket.dataReceived(self.head)
        self.websockets.append(websocket)

    def visitors(self) -> None:
        rights = "subscribe-broadcast&subscribe-user&subscribe-session"
        self.serve(Everybody(), f"/ws/foobar?{rights}")

    def assert_calls(self, most: int) -> None:
        counted = counted_calls(self.open)
        self.assertIn(b"101", self.websockets[-1].transport.value()[:13])
        self.assertFalse(self.websockets[-1].session.feed.replaying)
        ours = counted.total() - sum(
            number for name, number in counted.items() if name.startswith("testing.py:StringT")
        )
        self.assertLessEqual(ours, most, counted.most_common(30))

    def test_a_handshake_without_django_calls_few_functions(self) -> None:
        self.serve()
        self.assert_calls(MOST_CALLS)

    def test_a_handshake_of_a_visitor_with_three_subscriptions_calls_few_functions(self) -> None:
        self.visitors()
        self.assert_calls(MOST_CALLS_FOR_A_VISITOR)

    def test_a_handshake_costs_the_same_however_many_websockets_there_are(self) -> None:
        self.visitors()
        few = counted_calls(self.open).total()
        for _ in range(500):
            self.open()
        self.assertLessEqual(abs(counted_calls(self.open).total() - few), 8)

    def test_an_open_websocket_is_made_of_few_objects(self) -> None:
        self.visitors()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(200):
            self.open()
        gc.collect()
        self.assertLessEqual((len(gc.get_objects()) - before) / 200, MOST_OBJECTS)
