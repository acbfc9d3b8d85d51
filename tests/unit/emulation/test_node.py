"""A POST may reach another process than the stream that it is for."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.names import is_control_channel
from ws4redis_tx.emulation.node import TAKEN_WITHIN, Node
from ws4redis_tx.testing import MemoryBroker

DIGEST = "0123456789abcdef" * 4


class Recording(MemoryBroker):
    """Keeps what was published. Its ``frozen`` channels have listeners that hear nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[tuple[bytes, bytes]] = []
        self.frozen: set[bytes] = set()

    def publish(self, channels: Any, message: bytes, *arguments: Any, **named: Any) -> Any:
        self.published += [(channel, message) for channel in channels]
        if self.frozen.intersection(channels):
            return succeed(1)
        return super().publish(channels, message, *arguments, **named)


class NodeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.broker = Clock(), Recording()
        self.taken: list[tuple[str, bytes]] = []
        self.here = self.node()
        self.there = self.node()

    def node(self) -> Node:
        return Node(
            "p", self.broker, self.clock, lambda name, data: self.taken.append((name, data))
        )

    def test_another_process_takes_the_data_byte_for_byte(self) -> None:
        self.successResultOf(self.there.listen())
        for data in (b"", b"{}\n{}", b"\xff\0\n1 took 1", b"x" * 65_536):
            passed = self.here.pass_on(self.there.name, DIGEST, data)
            self.assertTrue(self.successResultOf(passed))
            self.assertEqual(self.taken.pop(), (DIGEST, data))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ones_own_needs_no_redis(self) -> None:
        self.assertTrue(self.successResultOf(self.here.pass_on(self.here.name, DIGEST, b"a")))
        self.assertEqual((self.taken, self.broker.published), ([(DIGEST, b"a")], []))

    def test_an_unknown_one_is_told_to_nobody_else(self) -> None:
        self.successResultOf(self.there.listen())
        for name in ("", "zzz", "0" * 15, "0" * 17, self.there.name.upper() + " ", "a:revoke"):
            self.assertFalse(self.successResultOf(self.here.pass_on(name, DIGEST, b"a")), name)
        self.assertEqual(self.broker.published, [])
        self.assertFalse(self.successResultOf(self.here.pass_on("0" * 16, DIGEST, b"a")))
        self.assertEqual([channel for channel, _ in self.broker.published], [
            b"p:ctl:node:0000000000000000"
        ])  # fmt: skip
        self.assertEqual(self.taken, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_does_not_answer_is_given_up(self) -> None:
        self.broker.frozen.add(f"p:ctl:node:{self.there.name}".encode())
        passed = self.here.pass_on(self.there.name, DIGEST, b"a")
        self.assertNoResult(passed)
        self.clock.advance(TAKEN_WITHIN)
        self.assertFalse(self.successResultOf(passed))
        self.here.deliver(Publication(None, b"1 took 1"))  # too late
        self.assertLess(TAKEN_WITHIN, 2.0)

    def test_so_is_a_redis_that_does_not_answer_or_cannot(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.patch(self.broker, "listen", lambda *_: waiting)
        passed = self.here.pass_on("0" * 16, DIGEST, b"a")
        self.clock.advance(TAKEN_WITHIN)
        self.assertFalse(self.successResultOf(passed))
        waiting.errback(BrokerUnavailable("gone"))
        again: Deferred[None] = Deferred()
        self.patch(self.broker, "listen", lambda *_: again)
        passed = self.here.pass_on("0" * 16, DIGEST, b"a")
        again.errback(BrokerUnavailable("gone"))
        self.assertFalse(self.successResultOf(passed))

    def test_a_failure_to_listen_is_not_final(self) -> None:
        waiting: Deferred[None] = Deferred()
        real = self.broker.listen
        self.patch(self.broker, "listen", lambda *_: waiting)
        both = [self.here.listen(), self.here.listen()]
        waiting.errback(BrokerUnavailable("gone"))
        for each in both:
            self.failureResultOf(each, BrokerUnavailable)
        self.patch(self.broker, "listen", real)
        self.successResultOf(self.here.listen())
        self.assertEqual(self.broker.control.channels, {self.here._channel(self.here.name)})
        self.here.stop()
        self.here.stop()
        self.assertEqual(self.broker.control.channels, set())

    def test_what_it_does_not_understand_is_skipped(self) -> None:
        self.successResultOf(self.here.listen())
        for payload in (b"", b"2 post x", b"1 took x", b"1 post", b"1 took " + b"9" * 30, b"\xff",
                        b"1 post " + b"0" * 16 + b" 1 " + b"g" * 64 + b"\nx"):  # fmt: skip
            self.here.deliver(Publication(None, payload))
        self.assertEqual((self.taken, self.broker.published), ([], []))

    def test_no_client_can_speak_on_its_channel(self) -> None:
        self.assertTrue(is_control_channel(self.here._channel(self.here.name)))
