"""A client that sends much at once takes turns with the others."""

from __future__ import annotations

from typing import Any

from tests.support.memory import ReactorClock, SlowBroker, WebSocketTests
from tests.support.wires import unfinished
from ws4redis_tx.scheduling.round_robin import TURN_STEPS
from ws4redis_tx.sessions.inbox import MAX_UNACKNOWLEDGED
from ws4redis_tx.testing import MemoryClient, client_frame

PING = client_frame(9, b"")
PINGS = PING * 9900  # a burst within the rate


class TurnTests(WebSocketTests):
    def setUp(self) -> None:
        super().setUp()
        self.clock = ReactorClock()
        self.use()

    def wire(self, client: MemoryClient) -> Any:
        return client._server.transport

    def finish(self) -> None:
        while self.clock.getDelayedCalls() and self.next_is_due():
            self.clock.advance(0)

    def next_is_due(self) -> bool:
        return self.clock.getDelayedCalls()[0].getTime() <= self.clock.seconds()

    def test_a_burst_is_taken_a_turn_at_a_time(self) -> None:
        client = self.connect()
        client.send_bytes(PINGS)
        self.assertEqual(self.wire(client).pongs, TURN_STEPS // 2)
        self.finish()
        self.assertEqual(self.wire(client).pongs, 9900)
        self.assertTrue(client.open)

    def test_between_the_bursts_of_sixty_clients_a_ping_is_answered_at_once(self) -> None:
        other = self.connect()
        crowd = [self.connect() for _ in range(60)]
        for client in crowd:
            client.send_bytes(PINGS)
        other.send_bytes(client_frame(9, b"are you there?"))
        self.assertEqual(self.wire(other).pongs, 1)
        answered = sum(self.wire(client).pongs for client in crowd)
        self.assertLessEqual(answered, 60 * TURN_STEPS // 2)

    def test_a_message_waits_for_one_turn_of_each_client_at_most(self) -> None:
        other = self.connect("publish-broadcast&subscribe-broadcast&echo")
        crowd = [self.connect() for _ in range(60)]
        for client in crowd:
            client.send_bytes(PING * 100)
        before = sum(self.wire(client).pongs for client in crowd)
        other.send("x" * 5000)
        answered: list[int] = []
        server = other._server
        received = server.session.received
        self.patch(
            type(server.session),
            "received",
            lambda session, payload: (
                answered.append(sum(self.wire(client).pongs for client in crowd)),
                received(payload),
            ),
        )
        self.clock.advance(0)
        self.assertLessEqual(answered[0] - before, 60 * TURN_STEPS // 2)
        self.assertEqual(other.messages, ["x" * 5000])

    def test_messages_keep_their_order_and_their_bytes(self) -> None:
        client = self.connect("publish-broadcast&subscribe-broadcast&echo")
        messages = [str(number) + "x" * (number % 300) for number in range(500)]
        data = b""
        for message in messages:
            payload = message.encode()
            cut = len(payload) // 2
            data += unfinished(1, payload[:cut]) + PING + client_frame(0, payload[cut:])
        for start in range(0, len(data), 7000):
            client.send_bytes(data[start : start + 7000])
        self.finish()
        self.assertEqual(client.messages, messages)
        self.assertEqual(self.wire(client).pongs, len(messages))

    def test_nothing_more_is_read_from_the_client_meanwhile(self) -> None:
        client = self.connect()
        client.send_bytes(PINGS[:600])
        self.assertEqual(self.wire(client).producerState, "paused")
        self.finish()
        self.assertEqual(self.wire(client).producerState, "producing")

    def test_a_little_is_never_paused_for(self) -> None:
        client = self.connect()
        paused: list[int] = []
        self.patch(self.wire(client), "pauseProducing", lambda: paused.append(1))
        client.send_bytes(PING)
        client.send_bytes(PING[:3])
        client.send_bytes(PING[3:])
        self.assertEqual(self.wire(client).pongs, 2)
        self.assertEqual(paused, [])

    def test_nor_for_one_short_frame_which_is_taken_at_once(self) -> None:
        busy, client = self.connect(), self.connect("publish-broadcast&subscribe-broadcast&echo")
        busy.send_bytes(PINGS)
        paused: list[int] = []
        self.patch(self.wire(client), "pauseProducing", lambda: paused.append(1))
        for size in (100, 125, 126, 1000, 4088):
            client.send("x" * size)
            self.assertEqual(client.messages.pop(), "x" * size)
        self.assertEqual(paused, [])
        client.send_bytes(client_frame(1, b"x" * 1000) + PING)
        self.assertEqual(client.messages, [])
        self.finish()
        self.assertEqual(client.messages, ["x" * 1000])

    def test_not_even_the_rest_of_a_read_is_taken_while_64_messages_wait_for_redis(self) -> None:
        broker = SlowBroker("publish")
        self.use(broker)
        client = self.connect("publish-broadcast")
        client.send_bytes(client_frame(1, b"x") * 100)
        self.finish()
        self.assertEqual(len(broker.waiting["publish"]), MAX_UNACKNOWLEDGED)
        broker.answer("publish")
        self.finish()
        self.assertEqual(len(broker.waiting["publish"]), 100 - MAX_UNACKNOWLEDGED)
        self.assertEqual(self.wire(client).producerState, "producing")

    def test_a_close_behind_a_burst_is_answered_after_it(self) -> None:
        heard = self.connect()
        client = self.connect("publish-broadcast")
        client.send_bytes(client_frame(1, b"x") * 1000 + client_frame(8, b"\x03\xe8"))
        self.assertIsNone(client.close_code)
        self.finish()
        self.assertEqual(client.close_code, 1000)
        self.assertEqual(heard.messages, ["x"] * 1000)

    def test_a_client_that_leaves_in_the_middle_leaves_nothing(self) -> None:
        client = self.connect("publish-broadcast")
        client.send_bytes(PINGS)
        client.lose_connection()
        self.finish()
        self.assertEqual(self.wire(client).pongs, TURN_STEPS // 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assert_nothing_left()

    def test_a_rate_that_is_exceeded_in_the_middle_ends_it(self) -> None:
        self.use(rate=(10, 1_000_000))
        client = self.connect()
        client.send_bytes(PINGS)
        self.finish()
        self.assertEqual(client.close_code, 1013)
        self.assertEqual(self.wire(client).pongs, 100)

    def test_a_failure_in_a_turn_ends_the_websocket_and_no_other(self) -> None:
        client, other = self.connect(), self.connect()
        client.send_bytes(PINGS[:6000])
        other.send_bytes(PINGS[:6000])
        self.patch(client._server, "onPing", lambda payload: 1 / 0)
        self.finish()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(client._gone)
        self.assertEqual(self.wire(other).pongs, 1000)

    def test_bytes_that_arrive_though_nothing_is_read_wait(self) -> None:
        # TLS hands over all of a read, even if it is paused in the middle.
        broker = SlowBroker("publish")
        self.use(broker)
        client = self.connect("publish-broadcast")
        client.send_bytes(client_frame(1, b"x") * MAX_UNACKNOWLEDGED)
        self.finish()
        client.send_bytes(client_frame(1, b"y"))
        self.assertEqual(len(broker.waiting["publish"]), MAX_UNACKNOWLEDGED)
        broker.answer("publish")
        self.finish()
        self.assertEqual(len(broker.waiting["publish"]), 1)

    def test_who_waits_for_a_turn_is_not_taken_for_dead(self) -> None:
        client = self.connect()
        client.send_bytes(PINGS)
        client._server.check_liveness()
        client._server.drop_if_silent()
        self.assertTrue(client.open)
