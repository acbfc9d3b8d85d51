"""The cost of an idle websocket in calls: its ping, the pong, and the look for silent ones.

A higher count is a price: lower it again, or know the reason and raise the bound. If a count is
much lower than its bound, lower the bound.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.support.calls import counted_calls
from tests.support.wires import handshake_bytes
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.sessions.server import PING_INTERVAL
from ws4redis_tx.testing import MemoryBroker, make_memory_factory

PEER = IPv4Address("TCP", "127.0.0.1", 1)
PONG = b"\x8a\x80\0\0\0\0"

# `check_liveness`, the outbox's `write_control` and `write`, and `dataReceived` for the pong.
MOST_CALLS = 4


class Answering(StringTransport):
    """Answers each ping at once, and counts them."""

    protocol: Any
    pings = 0

    def __init__(self) -> None:
        super().__init__(peerAddress=PEER)

    def write(self, data: bytes) -> None:
        if data == b"\x89\x00":
            self.pings += 1
            self.protocol.dataReceived(PONG)
        else:
            super().write(data)


class PingCostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = make_memory_factory(ServerConfig(), broker=MemoryBroker(), clock=self.clock)
        self.wires: list[Answering] = []

    def open(self, number: int) -> None:
        for _ in range(number):
            wire = Answering()
            wire.protocol = self.factory.buildProtocol(PEER)
            wire.protocol.makeConnection(wire)
            wire.protocol.dataReceived(handshake_bytes("/ws/foobar?subscribe-broadcast"))
            self.wires.append(wire)
        for _ in range(10):
            self.clock.advance(0)
        self.period()  # warm up

    def period(self) -> None:
        for _ in range(int(PING_INTERVAL / 0.25)):
            self.clock.advance(0.25)

    def test_a_ping_and_its_pong_cost_few_calls(self) -> None:
        self.open(10)
        few = counted_calls(self.period, within="/ws4redis_tx/", besides=("/testing/",))
        self.open(100)
        before = sum(each.pings for each in self.wires)
        many = counted_calls(self.period, within="/ws4redis_tx/", besides=("/testing/",))
        self.assertEqual(sum(each.pings for each in self.wires) - before, 110)
        self.assertLessEqual((many - few).total(), 100 * MOST_CALLS, (many - few).most_common())
