"""What a publish costs in commands and bytes, and what becomes of one that is refused in part."""

from __future__ import annotations

from typing import Any

import valkey
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.brokers import Listener
from tests.support.redis import RedisServer, shared_redis
from tests.support.small_redis import RedisWorld
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.redis.protocol import LOST, CommandProtocol, ResponseError
from ws4redis_tx.redis.scripts import PORTION

CHANNELS = [b"user:%d:f" % i for i in range(1000)]


class CostTests(SynchronousTestCase):
    """Over a Redis in small, whose wire is looked at."""

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
        """The commands that it took; they were carried out."""
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


class TogetherTests(SynchronousTestCase):
    """Commands that are sent together."""

    def setUp(self) -> None:
        self.protocol = CommandProtocol()
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def test_their_answers_come_together_and_those_that_are_errors_too(self) -> None:
        asked = self.protocol.execute_commands([("GET", b"a"), ("GET", "b"), ("PING",)])
        other = self.protocol.execute_command("GET", 7)
        self.protocol.dataReceived(b"$1\r\nx\r\n-ERR no\r\n")
        self.assertNoResult(asked)
        self.protocol.dataReceived(b"+PONG\r\n-ERR other\r\n")
        first, second, third = self.successResultOf(asked)
        self.assertEqual((first, str(second), third), (b"x", "ERR no", b"PONG"))
        self.assertIsInstance(second, ResponseError)
        self.assertEqual(str(self.failureResultOf(other, ResponseError).value), "ERR other")

    def test_a_command_that_cannot_be_sent_takes_nobodys_answer(self) -> None:
        for nonsense in (None, bytearray(b"x"), "\udc80"):
            with self.assertRaises((TypeError, UnicodeEncodeError)):
                self.protocol.execute_commands([("GET", b"a"), ("GET", nonsense)])
        self.assertEqual(self.transport.value(), b"")
        mine = self.protocol.execute_command("GET", b"mine")
        others = self.protocol.execute_command("GET", b"others")
        self.protocol.dataReceived(b"$4\r\nmine\r\n$6\r\nothers\r\n")
        self.assertEqual(self.successResultOf(mine), b"mine")
        self.assertEqual(self.successResultOf(others), b"others")

    def test_when_the_connection_is_lost_amid_the_answers_all_fail(self) -> None:
        asked = self.protocol.execute_commands([("GET", b"a"), ("GET", b"b")])
        other = self.protocol.execute_command("PING")
        self.protocol.dataReceived(b"$1\r\nx\r\n")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(asked, LOST)
        self.failureResultOf(other, LOST)
        self.failureResultOf(self.protocol.execute_command("PING"), LOST)


class AtOnceTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_a_message_is_sent_before_the_reactor_turns(self) -> Any:
        redis = shared_redis()
        broker = RedisBroker(redis.address, "", reactor)
        broker.startService()
        self.addCleanup(broker.stopService)
        yield broker.when_available()
        with valkey.Valkey(port=redis.port) as client, client.pubsub() as heard:
            heard.subscribe("a")
            self.assertEqual(heard.get_message(timeout=20)["type"], "subscribe")
            published = broker.publish([b"a"], b"hi", 60)
            # Blocks the reactor's thread.
            message = heard.get_message(timeout=5)
        self.assertIsNotNone(message)
        self.assertEqual(message["data"], b"hi")
        self.assertEqual((yield published), 1)


class RefusedTests(TestCase):
    """A Redis user that may publish on some channels only."""

    timeout = 60

    @inlineCallbacks
    def start(self, *rules: str) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        redis.command("ACL", "SETUSER", "web", "on", ">secret", "+@all", *rules)
        address = RedisAddress(host="127.0.0.1", port=redis.port, username="web", password="secret")
        self.broker = RedisBroker(address, "", reactor)
        self.broker.startService()
        self.addCleanup(self.broker.stopService)
        yield self.broker.when_available()
        self.listener = Listener()
        for channel in (b"user:1:f", b"user:999:f"):
            yield self.broker.listen(channel, self.listener)

    @inlineCallbacks
    def test_channels_that_redis_refuses_cost_the_others_of_their_script_nothing(self) -> Any:
        yield self.start("~*", "&*ctl:*", "&user:1:*", "&user:999:*")
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.broker.publish(CHANNELS, b"hi", 60)
        self.assertNotIsInstance(caught.exception, BrokerRefused)
        self.assertIn("in part", str(caught.exception))
        self.assertTrue(caught.exception.maybe_published)
        yield self.listener.wait_for(2)
        self.assertEqual(self.listener.heard, [(b"user:1:f", b"hi"), (b"user:999:f", b"hi")])
        with self.assertRaises(BrokerRefused) as caught:
            yield self.broker.publish(CHANNELS[2:400], b"hi", 60)
        self.assertFalse(caught.exception.maybe_published)
        self.assertIn("No permissions", str(caught.exception))
        self.assertEqual((yield self.broker.publish([b"user:1:f"], b"again", 60)), 1)

    @inlineCallbacks
    def test_keys_that_redis_refuses_cost_the_others_their_atomicity_alone(self) -> Any:
        yield self.start("&*", "~at:*", "~user:1:*", "~user:999:*")
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.broker.publish(CHANNELS, b"hi", 60)
        self.assertTrue(caught.exception.maybe_published)
        yield self.listener.wait_for(2)
        self.assertEqual((yield self.broker.get(b"user:1:f")), b"hi")
        self.assertEqual((yield self.broker.get(b"user:999:f")), b"hi")
