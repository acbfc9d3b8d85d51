"""Clients that do not resume, beside a history."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.clients import CLOSE, exchange, open_wire
from tests.support.servers import ServerTestCase
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.positions import History, Kept

KEPT = Kept(History(10, 60))
CHANNEL = b"broadcast:f"
HANDSHAKE = handshake_bytes("/ws/f?subscribe-broadcast")


class NotResumingTests(ServerTestCase):
    @inlineCallbacks
    def hear(self, **options: Any) -> Any:
        """Fire with the bytes that a short-lived client is sent, and those of one that stays."""
        self.redis.command("FLUSHALL")
        broker = (yield self.start_server(**options)).factory.broker
        yield broker.commands.publish([CHANNEL], b"before", 60, KEPT)
        short = yield exchange(self.port, HANDSHAKE + CLOSE)
        wire = yield open_wire(self.port, HANDSHAKE)
        for message in b"text", b"\xff\0", b"", b"x" * 70_000:
            yield broker.commands.publish([CHANNEL], message, 60, KEPT)
        yield broker.fence()
        wire.transport.write(CLOSE)
        return short, (yield wire.ended)

    @inlineCallbacks
    def test_they_are_sent_the_same_bytes(self) -> Any:
        without = yield self.hear()
        beside = yield self.hear(history=(("*", 10, 60),))
        self.assertEqual(beside, without)
        for each in without:
            self.assertIn(b"before", each)
        self.assertIn(b"x" * 70_000, without[1])
