"""Opening a websocket, in memory: the real protocol on a fake wire; the test moves the clock."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import globalLogPublisher

from tests.support.memory import AllowAll, Counting, SlowBroker, Waiting, WebSocketTests
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.admission import AnonymousAuthorizer
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, MemoryClient, client_frame


class OpeningTests(WebSocketTests):
    def test_what_fails_after_the_101_closes_with_1011_and_answers_nothing_else(self) -> None:
        class Incomplete:
            def __init__(self, _: object) -> None:
                self.set_pubsub_channels = lambda request, channels: None
                self.release = lambda: None

        self.use(subscriber=lambda connection: Incomplete(connection))
        client = self.connect()
        self.assertEqual(client.close_code, 1011)
        self.assertIsNone(client.refused)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_the_accept_key_is_the_one_of_rfc_6455(self) -> None:
        client = self.connect(headers={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
        self.assertEqual(
            client.response_headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        )

    def test_the_101_waits_until_the_subscription_stands(self) -> None:
        self.use(SlowBroker("listen"))
        client = self.connect()
        self.assertFalse(client.open)
        self.broker.answer("listen")  # type: ignore[attr-defined]
        self.assertTrue(client.open)

    def test_an_outage_of_redis_is_503_for_each_client_and_no_line_for_any(self) -> None:
        self.broker.lose_connection()
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for _ in range(3):
            client = self.connect()
            self.assertEqual(client.refused, 503)
            self.assertIn("retry-after", client.response_headers)
        self.assertEqual(events, [])

    def test_handshakes_that_an_outage_of_redis_interrupts_have_no_line_either(self) -> None:
        asked: list[Deferred[None]] = []

        class Asking(MemoryBroker):
            def listen(self, channel: bytes, listener: Any) -> Deferred[None]:
                if channel.startswith(b"ctl:"):
                    return super().listen(channel, listener)
                asked.append(Deferred())
                return asked[-1]

        broker = Asking()
        self.use(broker)
        clients = [self.connect() for _ in range(3)]
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        broker.lose_connection()
        for each in asked:
            each.errback(BrokerUnavailable("The connection to Redis was lost."))
        self.assertEqual([client.refused for client in clients], [503] * 3)
        self.assertEqual(events, [])

    def test_it_waits_also_for_a_subscriber_that_does_not(self) -> None:
        class InTheOldWay(Counting):
            def set_pubsub_channels(self, request: Any, channels: Any) -> None:
                self._subscription = self._connection.pubsub()
                self._subscription.subscribe("broadcast:foobar")

        self.use(SlowBroker("listen"), subscriber=InTheOldWay)
        client = self.connect()
        self.assertFalse(client.open)
        self.broker.answer("listen")  # type: ignore[attr-defined]
        self.publish(b"hi")
        self.assertEqual(client.messages, ["hi"])

    def test_a_handshake_in_pieces_is_a_handshake(self) -> None:
        client = MemoryClient(self.factory)
        for byte in handshake_bytes():
            client.send_bytes(bytes((byte,)))
        self.assertTrue(client.open)

    def test_nothing_is_subscribed_for_a_client_that_left_while_it_was_authorized(self) -> None:
        waiting = Waiting()
        made: list[Any] = []
        self.use(authorizer=waiting, subscriber=made.append)
        self.connect().lose_connection()
        waiting.asked[0].callback(None)  # type: ignore[arg-type]
        self.assertEqual(made, [])

    def test_a_drain_or_an_outage_while_subscribing_is_answered_with_503(self) -> None:
        for change in ("drain", "outage"):
            broker = SlowBroker("listen")
            self.use(broker)
            client = self.connect()
            if change == "drain":
                self.factory.drain(1012)
            else:
                broker.available = False
            broker.answer("listen")
            self.assertEqual(client.refused, 503)

    def test_a_client_that_leaves_while_it_is_subscribed_leaves_nothing(self) -> None:
        self.use(SlowBroker("listen"))
        client = self.connect()
        client.lose_connection()
        self.broker.answer("listen")  # type: ignore[attr-defined]
        self.assert_nothing_left()

    def test_a_client_that_leaves_while_messages_are_replayed_leaves_nothing(self) -> None:
        for step in ("get", "fence"):
            Counting.released = []
            self.use(SlowBroker(step))
            client = self.connect()
            self.publish(b"live")
            client.lose_connection()
            self.broker.answer(step)  # type: ignore[attr-defined]
            self.assert_nothing_left()
            self.assertEqual(client.messages, [])

    def test_what_follows_a_request_at_once_is_refused_too(self) -> None:
        client = MemoryClient(self.factory)
        client.send_bytes(handshake_bytes() + client_frame(1, b"early"))
        self.assertEqual(client.refused, 400)

    def test_a_head_without_end_is_refused(self) -> None:
        client = MemoryClient(self.factory)
        client.send_bytes(b"GET /ws/ HTTP/1.1\r\n" + b"a: b\r\n" * 3000)
        self.assertEqual(client.refused, 400)

    def test_a_handshake_that_does_not_come_is_dropped(self) -> None:
        client = MemoryClient(self.factory)
        client.send_bytes(b"GET /ws/")
        self.clock.advance(6)
        client.send_bytes(b"foobar")
        self.assertIsNone(client.refused)
        self.assertTrue(client._gone)

    def test_an_authorization_that_takes_too_long_is_answered_with_503(self) -> None:
        self.use(authorizer=Waiting())
        client = self.connect()
        self.clock.advance(6)
        self.assertEqual(client.refused, 503)
        self.assertIn("retry-after", client.response_headers)

    def test_one_that_nobody_will_ever_answer_is_collected_without_a_word(self) -> None:
        self.use(authorizer=Waiting())
        self.connect()
        self.setUp()  # forgets everything
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_more_connections_than_configured_are_answered_with_503(self) -> None:
        self.use(max_connections=2)
        clients = [self.connect() for _ in range(3)]
        self.assertEqual([client.refused for client in clients], [None, None, 503])
        clients[0].close()
        self.assertTrue(self.connect().open)

    def test_redis_lost_while_subscribing_is_answered_with_503(self) -> None:
        class Lost(MemoryBroker):
            def listen(self, *args: Any) -> Deferred[None]:
                return fail(BrokerUnavailable("gone"))

        self.use(Lost())
        self.assertEqual(self.connect().refused, 503)
        self.assertEqual(len(Counting.released), 1)

    def test_a_subscriber_may_refuse(self) -> None:
        class Refusing(Counting):
            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                raise Denied(403, "Not today.")

        self.use(subscriber=Refusing)
        self.assertEqual(self.connect().refused, 403)
        self.assert_nothing_left()

    def test_one_that_cannot_reach_its_database_is_answered_with_503(self) -> None:
        class OperationalError(Exception):
            """A database's."""

        class Asking(RedisSubscriber):
            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                raise OperationalError("connection refused")

        class AlsoAsking(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                raise ConnectionRefusedError("connection refused")

        for parts in ({"subscriber": Asking}, {"authorizer": AlsoAsking()}):
            self.use(**parts)
            client = self.connect()
            self.assertEqual(client.refused, 503)
            self.assertIn("retry-after", client.response_headers)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_by_default_nobody_publishes_to_others(self) -> None:
        self.use(authorizer=AnonymousAuthorizer())
        self.assertEqual(self.connect("publish-broadcast").refused, 403)
        self.assertEqual(self.connect("subscribe-user").refused, 401)
        self.assertEqual(self.connect("subscribe-session").refused, 403)
