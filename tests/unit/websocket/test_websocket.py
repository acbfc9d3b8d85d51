"""One websocket's life, in memory: the real protocol on a fake wire, the clock in our hands."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred, fail

from tests.support.memory import Counting, SlowBroker, Waiting, WebSocketTests
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.admission import AnonymousAuthorizer
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, MemoryClient, client_frame


class ClosingReasonTests(WebSocketTests):
    def test_a_reason_is_cut_at_a_whole_character(self) -> None:
        websocket = self.connect()._server
        sent: list[tuple[int, bytes]] = []
        self.patch(websocket, "sendCloseFrame", lambda *frame: sent.append(frame))
        websocket.close(4000, "ä" * 62)
        self.assertEqual(sent, [(4000, ("ä" * 61).encode())])


class OpeningTests(WebSocketTests):
    def test_what_fails_after_the_101_closes_with_1011_and_answers_nothing_else(self) -> None:
        class Incomplete:
            def __init__(self, _: object) -> None:
                self.set_pubsub_channels = lambda request, channels: None
                self.release = lambda: None

        self.use(subscriber=Incomplete)
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
        self.setUp()  # forgets it all
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

    def test_by_default_nobody_publishes_to_others(self) -> None:
        self.use(authorizer=AnonymousAuthorizer())
        self.assertEqual(self.connect("publish-broadcast").refused, 403)
        self.assertEqual(self.connect("subscribe-user").refused, 401)
        self.assertEqual(self.connect("subscribe-session").refused, 403)


class ReplayTests(WebSocketTests):
    def test_what_is_persisted_comes_first(self) -> None:
        self.publish(b"before", 60)
        client = self.connect()
        self.publish(b"after")
        self.assertEqual(client.messages, ["before", "after"])

    def test_what_arrives_while_replaying_comes_after_and_once(self) -> None:
        for step in ("get", "fence"):
            self.use(SlowBroker(step))
            self.publish(b"1", 60)
            client = self.connect()
            self.publish(b"2", 60)
            self.publish(b"3", 60)
            self.assertTrue(client.open)
            self.assertEqual(client.messages, [])
            self.broker.answer(step)  # type: ignore[attr-defined]
            self.assertEqual(client.messages[-2:], ["2", "3"])
            self.assertEqual(len(client.messages), len(set(client.messages)))

    def test_when_the_connection_is_replaced_meanwhile_replay_starts_again(self) -> None:
        class Replaced(MemoryBroker):
            fences = 0

            def fence(self) -> Deferred[None]:
                self.fences += 1
                if self.fences == 1:
                    self.generation = 1
                    return fail(BrokerUnavailable("replaced"))
                return super().fence()

        self.use(Replaced())
        self.publish(b"kept", 60)
        client = self.connect()
        self.assertEqual(client.messages, ["kept"])
        self.assertEqual(self.broker.fences, 2)  # type: ignore[attr-defined]

    def test_a_connection_lost_and_back_during_the_read_starts_the_replay_again(self) -> None:
        broker = SlowBroker("get")
        self.use(broker)
        client = self.connect()
        broker.generation += 1
        self.publish(b"meanwhile", 60)
        self.publish(b"missed", 60)  # as a broker does that is back
        broker.answer("get")
        self.assertEqual(client.messages, [])
        broker.answer("get")
        self.assertEqual(client.messages, ["meanwhile", "missed"])

    def test_a_replay_that_redis_does_not_serve_is_tried_again_a_second_later(self) -> None:
        class Unwilling(Counting):
            tries = 0

            def send_persisted_messages(self, websocket: Any) -> Any:
                Unwilling.tries += 1
                if Unwilling.tries < 3:
                    raise BrokerUnavailable("not now")

        self.use(subscriber=Unwilling)
        client = self.connect()
        self.publish(b"live")
        self.clock.pump([1, 1])
        self.assertEqual((Unwilling.tries, client.messages), (3, ["live"]))

    def test_a_replay_that_fails_closes_with_1011(self) -> None:
        class Failing(Counting):
            def send_persisted_messages(self, websocket: Any) -> Any:
                raise RuntimeError("deliberate")

        self.use(subscriber=Failing)
        client = self.connect()
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_own_message_published_while_replaying_does_not_come_back(self) -> None:
        self.use(SlowBroker("get"))
        client = self.connect("subscribe-broadcast&publish-broadcast")
        client.send("mine")
        self.broker.answer("get")  # type: ignore[attr-defined]
        self.assertEqual(client.messages, [])


class PublishingTests(WebSocketTests):
    def test_no_heartbeat_is_due_after_the_end(self) -> None:
        self.use(heartbeat="--beat--")
        self.connect().close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_more_is_read_from_a_client_than_redis_acknowledges(self) -> None:
        self.use(SlowBroker("publish"))
        client = self.connect("publish-broadcast")
        transport = client._server.transport
        for _ in range(63):
            client.send("x")
        self.assertEqual(transport.producerState, "producing")
        client.send("x")
        self.assertEqual(transport.producerState, "paused")
        self.broker.answer("publish")  # type: ignore[attr-defined]
        self.assertEqual(transport.producerState, "producing")

    def test_a_heartbeat_is_sent_while_messages_are_replayed_too(self) -> None:
        self.use(SlowBroker("fence"), heartbeat="--beat--")
        client = self.connect()
        self.clock.pump([0.5] * 10)
        self.assertEqual(set(client.messages), {"--beat--"})

    def test_a_message_of_endless_fragments_of_nothing_closes_with_1009(self) -> None:
        self.use(rate=None)
        client = self.connect("publish-broadcast")
        begin, more = (bytes([opcode]) + client_frame(0, b"")[1:] for opcode in (1, 0))
        client.send_bytes(begin + more * 20_000)
        self.assertEqual(client.close_code, 1009)

    def test_a_message_in_tiny_pieces_is_kept_in_few(self) -> None:
        other = self.connect()
        client = self.connect("publish-broadcast")
        data = client_frame(1, b"x" * 5000)
        for at in range(0, len(data) - 2, 2):
            client.send_bytes(data[at : at + 2])
        self.assertLess(len(client._server.frame_data), 300)
        client.send_bytes(data[-2:])
        self.assertEqual(other.messages, ["x" * 5000])


class ClosingTests(WebSocketTests):
    def test_a_close_code_that_nobody_may_send_is_a_protocol_error(self) -> None:
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000):
            client = self.connect()
            client.close(code)
            self.assertEqual(client.close_code, 1002)

    def test_a_close_is_answered_after_earlier_messages_were_acknowledged(self) -> None:
        self.use(SlowBroker("publish"))
        client = self.connect("publish-broadcast")
        client.send("hi")
        client.close(1000)
        self.assertIsNone(client.close_code)
        self.broker.answer("publish")  # type: ignore[attr-defined]
        self.assertEqual(client.close_code, 1000)
        self.assert_nothing_left()

    def test_after_a_close_frame_nothing_follows(self) -> None:
        client = self.connect()
        client._server.session.close(1008)
        self.assertEqual(client.close_code, 1008)
        self.publish(b"late")
        client._server.session.send("late")
        client.send_bytes(client_frame(9, b"ping"))
        self.assertEqual(client._received, b"")
        self.assertEqual(client.messages, [])

    def test_what_a_client_sends_after_our_close_frame_is_not_published(self) -> None:
        other = self.connect()
        revoked = self.connect("publish-broadcast")
        revoked._server.session.close(1008)
        revoked.send_bytes(client_frame(1, b"still here"))
        self.assertEqual(other.messages, [])

    def test_whatever_a_release_leaves_is_freed(self) -> None:
        class Forgetful(RedisSubscriber):
            def release(self) -> None:
                raise LookupError("deliberate")

        self.use(subscriber=Forgetful)
        client = self.connect()
        self.factory.session_server.sessions.copy().pop().state.subscriber.parse_response()
        client.close()
        self.assertEqual(list(self.broker.hub.channels), [])
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_a_client_that_closes_and_does_not_read_is_dropped(self) -> None:
        """Its connection would never be lost by itself, and a shutdown would wait for it."""
        client = self.connect()
        transport = client._server.transport
        transport.loseConnection = lambda: None
        client.close()
        gone = self.factory.drain(1012)
        self.assertNoResult(gone)
        self.clock.advance(2.1)
        self.successResultOf(gone)
        self.assert_nothing_left()

    def test_draining_closes_all_and_refuses_new_ones(self) -> None:
        clients = [self.connect() for _ in range(3)]
        gone = self.factory.drain(1012)
        self.assertEqual([client.close_code for client in clients], [1012] * 3)
        self.assertEqual(self.connect().refused, 503)
        self.assertNoResult(gone)
        for client in clients:
            client.lose_connection()
        self.successResultOf(gone)

    def test_a_client_that_does_not_answer_a_close_is_dropped(self) -> None:
        self.connect()
        gone = self.factory.drain(1012)
        self.clock.advance(3)
        self.successResultOf(gone)

    def test_pings_of_a_client_that_does_not_read_fill_no_memory(self) -> None:
        client = self.connect()
        client.send_bytes(client_frame(9, b"ping"))
        self.assertEqual(client._server.transport.pongs, 1)
        client._server.pauseProducing()
        for _ in range(10):
            client.send_bytes(client_frame(9, b"ping"))
        self.assertEqual(client._server.transport.pongs, 1)

    def test_what_overflows_before_it_is_open_is_refused_and_no_zombie(self) -> None:
        broker = SlowBroker("listen")
        self.use(broker, max_pending=1000)
        client = self.connect()
        for _ in range(20):
            self.publish(b"x" * 100)
        broker.answer("listen")
        self.assertEqual((client.open, client.refused), (False, 503))

    def test_a_client_that_reads_again_gets_everything_in_order(self) -> None:
        client = self.connect()
        self.publish(b"1")
        client._server.pauseProducing()
        self.publish(b"2")
        self.publish(b"3")
        client._server.resumeProducing()
        self.publish(b"4")
        self.assertEqual(client.messages, ["1", "2", "3", "4"])
