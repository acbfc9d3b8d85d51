"""However many clients resume at once, from whatever positions, Redis reads each history once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.clients import CLOSE, open_wire
from tests.support.redis import RedisServer
from tests.support.servers import ServerTestCase
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.positions import History
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.testing.wire import SUBPROTOCOL

F = b"broadcast:f"


class StormTests(ServerTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        service = yield self.start_server(history=(("f", 100, 3600),))
        self.broker, self.server = service.factory.broker, service.factory.session_server

    @inlineCallbacks
    def publish(self, count: int) -> Any:
        """Fire with the position before each of so many messages."""
        positions = []
        for number in range(count):
            positions.append((yield self.broker.now()))
            yield self.broker.publish([F], b"%d" % number, 60, None, History(100, 3600))
        return positions

    def scripts(self) -> int:
        """The number of scripts that Redis has run."""
        stats = self.redis.command("INFO", "commandstats")
        return sum(stats.get(f"cmdstat_{each}", {}).get("calls", 0) for each in ("eval", "evalsha"))

    @inlineCallbacks
    def test_a_thousand_who_resume_in_one_turn_cost_one_read(self) -> Any:
        positions = yield self.publish(50)
        before = self.scripts()
        asked = [self.broker.missed([F], positions[number % 50]) for number in range(1000)]
        answers = yield gather(asked)
        self.assertEqual(self.scripts() - before, 1)
        for number, missed in enumerate(answers):
            expected = [b"%d" % each for each in range(number % 50, 50)]
            self.assertEqual([each.payload for each in missed.messages], expected)
        # The messages are the same objects, and so are the frames that are made of them.
        self.assertEqual(len({id(m) for missed in answers for m in missed.messages}), 50)

    @inlineCallbacks
    def test_after_an_outage_all_clients_catch_up_with_one_read(self) -> Any:
        (position,) = yield self.publish(1)
        head = handshake_bytes(
            f"/ws/f?subscribe-broadcast&since={position}", **{"Sec-WebSocket-Protocol": SUBPROTOCOL}
        )
        wires = []
        for _ in range(200):
            wires.append((yield open_wire(self.port, head)))
        yield self.broker.fence()
        before = self.scripts()
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield self.publish(5)  # ten scripts of ours
        yield self.broker.fence().addErrback(lambda _: None)
        yield self.broker.when_available()
        yield self.broker.fence()
        while any(each.feed.replaying for each in self.server.sessions):
            yield self.broker.fence()
        self.assertLess(self.scripts() - before, 30)
        for wire in wires:
            wire.transport.write(CLOSE)
            received = yield wire.ended
            for number in range(5):
                self.assertEqual(received.count(b"\n%d" % number), 1 + (number == 0))
