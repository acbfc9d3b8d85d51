"""Hooks get each client message, and may change, answer or refuse it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.support.memory import SlowBroker
from tests.unit.sessions.hooked import CHANNEL, HooksTestCase, Patient
from ws4redis_tx.core.errors import BrokerUnavailable, MessageRefused
from ws4redis_tx.sessions.inbox import MAX_UNACKNOWLEDGED
from ws4redis_tx.sessions.server import PING_INTERVAL, PING_TIMEOUT
from ws4redis_tx.testing import MemoryBroker, client_frame


class MessageTests(HooksTestCase):
    def test_a_message_is_published_as_the_hook_answers_it(self) -> None:
        answers: list[Any] = [b"a", "\u00e4", b"\xff", b""]
        self.use(self.saying(lambda connection, message: answers[int(message)]))
        client = self.connect()
        for i in range(4):
            client.send(str(i))
        self.assertEqual(client.messages, ["a", "\u00e4", b"\xff", ""])

    def test_none_publishes_nothing_and_the_client_goes_on(self) -> None:
        self.use(self.saying(lambda connection, message: message if message != b"no" else None))
        client = self.connect()
        for message in ("a", "no", "b"):
            client.send(message)
        self.assertEqual(client.messages, ["a", "b"])
        self.assertTrue(client.open)

    def test_an_answer_goes_to_this_client_alone(self) -> None:
        def answer(connection: Any, message: bytes) -> None:
            connection.send(b"you said " + message)

        self.use(self.saying(answer))
        client, other = self.connect(), self.connect()
        client.send("a")
        self.assertEqual((client.messages, other.messages), (["you said a"], []))

    def test_a_refused_message_closes_with_1008_and_says_why(self) -> None:
        def refuse(connection: Any, message: bytes) -> bytes:
            raise MessageRefused("\u00e4" * 100)

        self.use(self.saying(refuse))
        client, other = self.connect(), self.connect()
        client.send("a")
        self.assertEqual(client.close_code, 1008)
        self.assertTrue(other.open)
        self.assertEqual(other.messages, [])
        client.lose_connection()
        self.assertEqual(self.hooks.closing.reason, "\u00e4" * 61)

    def test_what_a_refused_client_sent_besides_is_neither_asked_about_nor_published(self) -> None:
        asked = []

        async def refuse(connection: Any, message: bytes) -> bytes:
            asked.append(message)
            await waiting
            raise MessageRefused

        waiting: Deferred[None] = Deferred()
        self.use(self.saying(refuse))
        client, other = self.connect(), self.connect()
        client.send("a")
        client.send("b")
        waiting.callback(None)
        self.assertEqual((client.close_code, asked, other.messages), (1008, [b"a"], []))

    def test_an_exception_is_logged_closes_with_1011_and_harms_nobody_else(self) -> None:
        def fail(connection: Any, message: bytes) -> bytes:
            raise ZeroDivisionError

        self.use(self.saying(fail))
        client, other = self.connect(), self.connect()
        client.send("a")
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.broker.publish([CHANNEL], b"still here", 0)
        self.assertEqual(other.messages, ["still here"])

    def test_so_does_an_answer_that_is_no_message(self) -> None:
        self.use(self.saying(lambda connection, message: {"text": "a"}))
        client = self.connect()
        client.send("a")
        self.assertEqual(client.close_code, 1011)
        (error,) = self.flushLoggedErrors(TypeError)
        self.assertIn("returned a dict", str(error.value))

    def test_hooks_that_wait_keep_the_order_and_are_asked_one_at_a_time(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        for message in ("a", "b", "c"):
            client.send(message)
        self.assertEqual(self.hooks.told, ["connected", b"a"])
        self.hooks.answer()
        self.assertEqual(client.messages, ["a"])
        self.hooks.answer("B")
        self.hooks.answer()
        self.assertEqual(client.messages, ["a", "B", "c"])

    def test_one_that_answers_at_once_does_not_overtake_one_that_waited(self) -> None:
        waiting: Deferred[bytes] = Deferred()
        self.use(self.saying(lambda connection, message: waiting if message == b"0" else message))
        client = self.connect()
        for i in range(60):
            client.send(str(i))
        waiting.callback(b"0")
        self.assertEqual(client.messages, [str(i) for i in range(60)])

    def test_the_next_hook_does_not_wait_for_redis(self) -> None:
        broker = SlowBroker("publish")
        self.use(broker=broker)
        client = self.connect()
        client.send("a")
        client.send("b")
        self.assertEqual(self.hooks.told, ["connected", b"a", b"b"])
        broker.answer("publish")

    def test_a_client_is_not_read_while_too_many_of_its_messages_wait(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        transport = client._server.transport
        for _ in range(MAX_UNACKNOWLEDGED):
            self.assertEqual(transport.producerState, "producing")
            client.send("a")
        self.assertEqual(transport.producerState, "paused")
        self.hooks.answer()
        self.assertEqual(transport.producerState, "producing")

    def test_one_that_is_not_read_is_not_taken_for_dead(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        client.answers_pings = False  # nobody would read its answer
        client.send_bytes(client_frame(1, b"a") * (MAX_UNACKNOWLEDGED + 20))
        for _ in range(20):
            self.clock.pump([0.1] * 30)
            self.hooks.answer()
        self.assertTrue(client.open)
        for _ in range(MAX_UNACKNOWLEDGED):
            self.hooks.answer()
        for _ in range(int(10 * (2 * PING_INTERVAL + PING_TIMEOUT))):
            if client.open:
                self.clock.advance(0.1)
        self.assertFalse(client.open)

    def test_one_that_does_not_read_and_is_gone_is_noticed_nevertheless(self) -> None:
        self.use()
        client = self.connect()
        client.answers_pings = False
        client._server.pauseProducing()
        for _ in range(int(10 * (2 * PING_INTERVAL + PING_TIMEOUT))):
            if client.open:
                self.clock.advance(0.1)
        self.assertFalse(client.open)

    def test_a_clients_close_is_answered_when_its_messages_were_published(self) -> None:
        self.use(Patient())
        client, other = self.connect(), self.connect()
        self.hooks.answer()
        self.hooks.answer()
        client.send("a")
        client.close(4000)
        self.assertIsNone(client.close_code)
        self.hooks.answer()
        self.assertEqual((client.close_code, other.messages), (4000, ["a"]))

    def test_what_the_end_overtakes_in_a_hook_is_not_published(self) -> None:
        self.use(Patient())
        client, other = self.connect(), self.connect()
        self.hooks.answer()
        self.hooks.answer()
        client.send("a")
        client.send("b")
        client.lose_connection()
        self.hooks.answer()
        self.assertEqual(other.messages, [])
        self.assertEqual(self.hooks.told[2:], [b"a", self.hooks.closing])

    def test_a_revoked_client_says_nothing_more(self) -> None:
        self.use(Patient())
        client, other = self.connect(), self.connect()
        self.hooks.answer()
        self.hooks.answer()
        client.send("a")
        client._server.session.revoke()
        self.hooks.answer()
        self.assertEqual(other.messages, [])

    def test_heartbeats_are_no_messages(self) -> None:
        self.use(heartbeat="--beat--")
        client = self.connect()
        client.send("--beat--")
        client.send("a")
        client.lose_connection()
        self.assertEqual(self.hooks.told[1], b"a")
        self.assertEqual(self.hooks.closing.received, 1)

    def test_a_publish_that_fails_closes_as_without_hooks(self) -> None:
        class Down(MemoryBroker):
            def publish(self, *arguments: Any) -> Any:
                raise BrokerUnavailable("gone")

        self.use(broker=Down())
        client = self.connect()
        client.send("a")
        self.assertEqual(client.close_code, 1013)
