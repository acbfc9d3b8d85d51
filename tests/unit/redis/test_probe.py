"""A deaf connection is noticed within 20 s; a slow or paused one is left alone."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.redis.persisted import RedisClock
from ws4redis_tx.redis.pubsub import Probe
from ws4redis_tx.redis.wire.protocol import ResponseError


class Commands:
    """Counts the probes that it has to publish."""

    connected = True

    def __init__(self) -> None:
        self.probes = 0
        self.answer: Any = lambda: succeed(1)

    def probe(self, channel: bytes) -> Deferred[int]:
        self.probes += 1
        answer: Deferred[int] = self.answer()
        return answer


class ProbeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.commands: Any = Commands()
        self.told: list[str] = []
        self.probe = Probe(
            "site",
            self.commands,
            self.clock,
            on_deaf=lambda: self.told.append("deaf"),
            on_refused=lambda: self.told.append("refused"),
        )
        self.probe.start()
        self.addCleanup(self.probe.stop)

    def test_one_that_does_not_come_back_shows_a_deaf_connection(self) -> None:
        self.clock.advance(10)
        self.assertEqual((self.commands.probes, self.told), (1, []))
        self.clock.advance(10)
        self.assertEqual(self.told, ["deaf"])

    def test_one_that_comes_back_shows_a_good_one_and_until_when_all_has_arrived(self) -> None:
        for _ in range(5):
            self.clock.advance(10)
            self.assertEqual(self.probe.returned(b"1234567:a1b2"), RedisClock(1234567, b"a1b2"))
            self.assertEqual(self.probe.returned(b"1234567"), RedisClock(1234567))
        self.assertEqual((self.commands.probes, self.told), (5, []))

    def test_what_somebody_else_put_there_is_none(self) -> None:
        self.clock.advance(10)
        for payload in (b"", b"x", b"-1", b"9" * 100):
            self.assertIsNone(self.probe.returned(payload))
        self.clock.advance(10)
        self.assertEqual(self.told, ["deaf"])

    def test_while_other_messages_arrive_it_is_only_behind(self) -> None:
        for _ in range(20):
            self.clock.advance(10)
            self.probe.heard = True
        self.assertEqual((self.commands.probes, self.told), (1, []))
        self.clock.pump([10, 10])
        self.assertEqual(self.told, ["deaf"])

    def test_a_connection_that_we_do_not_read_from_is_not_deaf(self) -> None:
        self.clock.advance(10)
        self.probe.paused = True
        self.clock.pump([10] * 20)
        self.assertEqual(self.told, [])
        self.probe.paused = False
        self.clock.advance(10)
        self.assertEqual(self.told, ["deaf"])

    def test_one_that_was_sent_out_of_turn_is_given_its_time(self) -> None:
        self.clock.advance(8)
        self.probe.send()
        self.clock.advance(2)
        self.assertEqual(self.told, [])
        self.clock.advance(10)
        self.assertEqual(self.told, ["deaf"])

    def test_trouble_of_the_command_connection_says_nothing_about_this_one(self) -> None:
        self.commands.answer = lambda: fail(BrokerUnavailable("lost"))
        self.clock.pump([10] * 5)
        self.assertEqual((self.commands.probes, self.told), (5, []))
        self.commands.connected = False
        self.clock.pump([10] * 5)
        self.assertEqual((self.commands.probes, self.told), (5, []))

    def test_a_redis_that_refuses_it_is_told(self) -> None:
        self.commands.answer = lambda: fail(BrokerRefused("OOM"))
        self.clock.advance(10)
        self.assertEqual(self.told, ["refused"])

    def test_where_the_channel_is_not_permitted_none_is_sent(self) -> None:
        class Protocol:
            def __init__(self, answer: Any) -> None:
                self.subscribe = lambda channel: answer

        forbidden: Any = Protocol(fail(ResponseError("NOPERM")))
        self.successResultOf(self.probe.subscribe(forbidden))
        self.clock.pump([10] * 5)
        self.assertEqual((self.commands.probes, self.told), (0, []))
        permitted: Any = Protocol(succeed(None))
        self.successResultOf(self.probe.subscribe(permitted))
        self.clock.advance(10)
        self.assertEqual(self.commands.probes, 1)

    def test_each_process_has_a_channel_of_its_own_under_the_prefix(self) -> None:
        other = Probe("site", self.commands, self.clock, on_deaf=self.fail, on_refused=self.fail)
        self.assertTrue(self.probe.channel.startswith(b"site:ctl:probe:"))
        self.assertNotEqual(self.probe.channel, other.channel)

    def test_it_may_be_stopped_twice(self) -> None:
        self.probe.stop()
        self.probe.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
