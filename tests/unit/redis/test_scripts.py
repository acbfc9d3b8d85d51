"""The cost of a publish in commands and bytes, over a small Redis."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.small_redis import RedisWorld
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.redis.scripts import PORTION

CHANNELS = [b"user:%d:f" % i for i in range(1000)]


class CostTests(SynchronousTestCase):
    """Counted on the wire of a small Redis."""

    def setUp(self) -> None:
        self.world = RedisWorld()
        self.written: list[bytes] = []
        connection = self.world.commands
        while connection.execute():  # the first probe
            connection.arrive()
        deliver = connection.sent

        def sent(data: bytes) -> None:
            self.written.append(data)
            deliver(data)

        connection.sent = sent  # type: ignore[attr-defined]

    def publish(self, channels: list[bytes], message: bytes, expire: int = 60) -> list[Any]:
        """Publish, let Redis carry it out, and return the commands."""
        publishing = self.world.broker.publish(channels, message, expire)
        commands = list(self.world.commands.requests)
        while self.world.commands.execute():
            pass
        self.world.commands.arrive_together()
        self.successResultOf(publishing)
        return commands

    def test_one_channel_is_one_command(self) -> None:
        (command,) = self.publish([b"a"], b"hi")
        self.assertEqual((command[0], command[2:]), (b"EVAL", [b"2", b"a", b"at:a", b"hi", b"60"]))
        self.assertEqual(self.publish([b"a"], b"hi", 0), [[b"PUBLISH", b"a", b"hi"]])

    def test_a_thousand_channels_are_ten_commands_in_one_write(self) -> None:
        commands = self.publish(CHANNELS, b"hi")
        self.assertEqual([command[0] for command in commands], [b"EVAL"] * 10)
        self.assertEqual([int(command[2]) for command in commands], [2 * PORTION] * 10)
        self.assertEqual([key for each in commands for key in each[3:-2:2]], CHANNELS)
        self.assertEqual(len(self.written), 1)

    def test_the_message_travels_once_for_each_hundred_channels(self) -> None:
        self.publish(CHANNELS, b"")
        self.publish(CHANNELS, b"x" * 10_000)
        without, with_message = map(len, self.written)
        self.assertTrue(100_000 <= with_message - without < 101_000)

    def test_without_expiry_a_thousand_channels_are_one_write_too(self) -> None:
        self.assertEqual(len(self.publish(CHANNELS, b"hi", 0)), 1000)
        self.assertEqual(len(self.written), 1)

    def test_the_subscribers_of_all_portions_are_counted(self) -> None:
        self.world.redis.subscribed |= {CHANNELS[0], CHANNELS[PORTION], CHANNELS[-1]}
        publishing = self.world.broker.publish(CHANNELS, b"hi", 60)
        while self.world.commands.execute():
            pass
        self.assertNoResult(publishing)
        self.world.commands.arrive_together()
        self.assertEqual(self.successResultOf(publishing), 3)

    def test_an_answer_for_fewer_channels_is_of_unknown_fate(self) -> None:
        publishing = self.world.broker.publish([b"a", b"b"], b"hi", 60)
        self.world.commands.protocol.dataReceived(b"*1\r\n:1\r\n")
        self.assertTrue(self.failureResultOf(publishing, BrokerUnavailable).value.maybe_published)
        self.assertFalse(self.world.broker.available)
