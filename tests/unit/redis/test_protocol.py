"""Replies that answer nothing end the connection, and nobody waits forever."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.small_redis import RedisWorld
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.redis.wire.protocol import LOST, CommandProtocol, PubSubProtocol, ResponseError
from ws4redis_tx.testing import connect

MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"


class OutOfStepTests(SynchronousTestCase):
    def speak(self, protocol: Any, data: bytes) -> bool:
        """Let ``data`` arrive; return whether that ended the connection."""
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.asked = protocol.ping()
        protocol.dataReceived(data)
        ended: bool = transport.disconnecting or transport.aborting
        if ended:
            protocol.connectionLost(Failure(ConnectionDone()))
        return ended

    def test_what_is_no_answer_to_a_ping_ends_the_connection(self) -> None:
        for data in (
            b"%1\r\n*0\r\n*0\r\n",
            b"#f\r\n",
            b"*0\r\n",
            b"*1\r\n*0\r\n",
            b":1\r\n",
            b"_\r\n",
            b"?\r\n",
            b"HTTP/1.1 400\r\n",
        ):
            with self.subTest(data=data):
                self.assertTrue(self.speak(PubSubProtocol(lambda messages: None), data))
                self.failureResultOf(self.asked, LOST)

    def test_a_message_without_channel_or_payload_is_none(self) -> None:
        heard: list[Any] = []
        for rest in (b"$1\r\nc\r\n:1\r\n", b"$-1\r\n$-1\r\n", b"*0\r\n$1\r\nx\r\n"):
            with self.subTest(rest=rest):
                data = b"*3\r\n$7\r\nmessage\r\n" + rest
                self.assertTrue(self.speak(PubSubProtocol(heard.extend), data))
                self.failureResultOf(self.asked, LOST)
        self.assertEqual(heard, [])

    def test_what_came_before_is_handed_over_and_what_comes_after_is_not(self) -> None:
        heard: list[Any] = []
        for nonsense in (b":1\r\n", b"?\r\n"):
            self.assertTrue(self.speak(PubSubProtocol(heard.extend), MESSAGE + nonsense + MESSAGE))
            self.failureResultOf(self.asked, LOST)
        self.assertEqual(heard, [(b"c", b"hello")] * 2)

    def test_an_answer_to_no_command_ends_the_connection_as_later_ones_would_be_anothers(
        self,
    ) -> None:
        for data in (b"+PONG\r\n:1\r\n", b"+PONG\r\n?\r\n"):
            with self.subTest(data=data):
                self.assertTrue(self.speak(CommandProtocol(), data))
                self.assertEqual(self.successResultOf(self.asked), b"PONG")


class SensibleAgainTests(SynchronousTestCase):
    """Websockets over a whole broker whose Redis gives one wrong answer."""

    def setUp(self) -> None:
        self.world = RedisWorld()
        self.honest = self.world.redis.answer
        self.settle()

    def settle(self) -> None:
        for _ in range(20):
            for pipe in (self.world.commands, self.world.pubsub):
                while pipe.execute() or (pipe.protocol is not None and pipe.arrive()):
                    self.world.clock.advance(0)
            self.world.recover()
            self.world.clock.advance(0.1)

    def lie(self, data: bytes) -> None:
        """Replace the next answer to a command."""

        def answer(connection: Any, command: Any) -> bytes:
            self.world.redis.answer = self.honest  # type: ignore[method-assign]
            self.honest(connection, command)
            return data

        self.world.redis.answer = answer  # type: ignore[method-assign]

    def test_a_replay_whose_answer_does_not_fit_is_asked_for_again(self) -> None:
        self.world.redis.publish(b"broadcast:f", b"kept", persist=True)
        for data in (b":1\r\n", b"*0\r\n", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*1\r\n:1\r\n"):
            with self.subTest(data=data):
                client = connect(self.world.factory, "ws://localhost/ws/f?subscribe-broadcast")
                self.world.pubsub.execute()
                self.world.pubsub.arrive()
                self.lie(data)
                self.settle()
                self.assertTrue(self.world.factory.broker.available)
                self.assertEqual((client.open, client.messages), (True, ["kept"]))

    def test_a_publish_whose_answer_is_no_number_is_of_unknown_fate(self) -> None:
        publishing = self.world.broker.publish([b"broadcast:f"], b"hi", 60)
        self.lie(b"+OK\r\n")
        self.settle()
        self.assertTrue(self.failureResultOf(publishing, BrokerUnavailable).value.maybe_published)
        self.assertTrue(self.world.broker.available)

    def test_what_others_say_on_the_channel_of_probes_is_not_listened_to(self) -> None:
        control = self.world.broker._dispatcher.probe.channel
        for payload in (b"", b"x", b"-1", b"\xff", b"9" * 5000):
            data = b"*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n" % (len(control), control)
            data += b"$%d\r\n%s\r\n" % (len(payload), payload)
            self.world.pubsub.protocol.dataReceived(data)
        self.assertTrue(self.world.broker.available)


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
