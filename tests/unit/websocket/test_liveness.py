"""A dead client is detected, a slow one is not mistaken for dead, and neither fills our memory."""

from __future__ import annotations

from typing import Any

from tests.support.memory import SlowBroker, WebSocketTests
from ws4redis_tx.testing import MemoryClient, client_frame
from ws4redis_tx.websocket import transport as websocket


class PingTests(WebSocketTests):
    def connect_silent(self) -> MemoryClient:
        client = self.connect()
        client.answers_pings = False
        return client

    def pass_time(self, seconds: int) -> None:
        self.clock.pump([0.25] * (4 * seconds))

    def test_a_client_that_answers_stays(self) -> None:
        client = self.connect()
        self.pass_time(200)
        self.assertTrue(client.open)

    def test_one_that_does_not_is_gone_ten_seconds_after_its_ping(self) -> None:
        client = self.connect_silent()
        while not self.sent():
            self.clock.advance(0.25)
        self.pass_time(9)
        self.assertTrue(client.open)
        self.pass_time(1)
        self.assertFalse(client.open)
        self.assert_nothing_left()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_any_byte_is_a_sign_of_life(self) -> None:
        client = self.connect_silent()
        for _ in range(25):
            client.send_bytes(client_frame(10, b"unasked"))
            self.pass_time(8)
        self.assertTrue(client.open)

    def test_the_answer_to_a_ping_takes_no_memory(self) -> None:
        client = self.connect()
        self.pass_time(60)
        self.assertGreater(self.sent(), 1)
        self.assertIsNone(client._server.session._limits)

    def test_what_only_looks_like_an_answer_is_read(self) -> None:
        answer = client_frame(10, b"")
        client = self.connect("subscribe-broadcast&publish-broadcast&echo")
        client.answers_pings = False
        message = client_frame(2, answer)
        client.send_bytes(message[:6])
        while not self.sent():
            self.clock.advance(0.25)
        client.send_bytes(message[6:])
        self.assertEqual(client.messages, [answer])

    def test_a_reader_that_is_slow_but_reads_is_alive(self) -> None:
        client = self.connect_silent()
        for _ in range(25):
            client._server.pauseProducing()
            self.pass_time(8)
            client._server.resumeProducing()
        self.assertTrue(client.open)

    def test_what_the_system_still_sends_of_a_large_message_is_a_sign_of_life(self) -> None:
        self.use(slow_reader="drop_oldest")
        waiting = {"bytes": 1000}
        self.patch(websocket, "unsent", lambda transport: waiting["bytes"])
        client = self.connect_silent()
        client._server.pauseProducing()
        for _ in range(60):
            self.pass_time(1)
            waiting["bytes"] -= 1
        self.assertTrue(client.open)
        self.pass_time(36)
        self.assertFalse(client.open)

    def test_so_is_it_for_one_that_was_not_known_to_be_slow_when_it_was_pinged(self) -> None:
        self.use(slow_reader="drop_oldest")
        waiting = {"bytes": 1000}
        self.patch(websocket, "unsent", lambda transport: waiting["bytes"])
        client = self.connect_silent()
        while not self.sent():
            self.clock.advance(0.25)
        self.pass_time(1)
        client._server.pauseProducing()
        for _ in range(30):
            self.pass_time(1)
            waiting["bytes"] -= 1
        self.assertTrue(client.open)
        self.pass_time(36)
        self.assertFalse(client.open)

    def test_one_that_reads_nothing_at_all_is_not(self) -> None:
        self.use(slow_reader="drop_oldest")
        client = self.connect_silent()
        client._server.pauseProducing()
        self.pass_time(36)
        self.assertFalse(client.open)
        self.assert_nothing_left()

    def test_the_first_pings_of_those_who_came_together_are_spread(self) -> None:
        for _ in range(200):
            self.connect()
        most = 0
        for _ in range(25):
            before = self.sent()
            self.pass_time(1)
            most = max(most, self.sent() - before)
        self.assertLess(most, 40)
        self.assertEqual(self.sent(), 200)

    def sent(self) -> int:
        sessions = self.factory.session_server.sessions
        return sum(session.transport.transport.pings for session in sessions)


class ReadingTests(WebSocketTests):
    """A client's own messages cannot fill our memory either."""

    def state(self, client: MemoryClient) -> Any:
        return client._server.transport.producerState

    def test_nothing_is_read_from_a_client_that_does_not_read(self) -> None:
        client = self.connect()
        client._server.pauseProducing()
        self.assertEqual(self.state(client), "paused")
        client._server.resumeProducing()
        self.assertEqual(self.state(client), "producing")

    def test_large_messages_wait_for_redis_in_fewer_numbers(self) -> None:
        broker = SlowBroker("publish")
        self.use(broker, max_pending=1000)
        client = self.connect("publish-broadcast")
        client.send("x" * 600)
        self.assertEqual(self.state(client), "producing")
        client.send("x" * 600)
        self.assertEqual(self.state(client), "paused")
        broker.answer("publish")
        self.assertEqual(self.state(client), "producing")

    def test_both_reasons_must_be_gone(self) -> None:
        broker = SlowBroker("publish")
        self.use(broker)
        client = self.connect("publish-broadcast")
        for _ in range(64):
            client.send("x")
        client._server.pauseProducing()
        client._server.resumeProducing()
        self.assertEqual(self.state(client), "paused")
        client._server.pauseProducing()
        broker.answer("publish")
        self.assertEqual(self.state(client), "paused")
        client._server.resumeProducing()
        self.assertEqual(self.state(client), "producing")


class SlowReaderTests(WebSocketTests):
    def stall(self, policy: str) -> MemoryClient:
        self.use(slow_reader=policy, max_pending=1000)
        client = self.connect("subscribe-broadcast")
        client._server.pauseProducing()
        for number in range(20):
            self.publish(b"%02d" % number)
        return client

    def test_close_is_the_default_and_ends_it_with_1013(self) -> None:
        client = self.stall("close")
        self.assertEqual(client.close_code, 1013)

    def test_a_close_that_gets_nowhere_is_cut_short(self) -> None:
        self.use(max_pending=1000)
        client = self.connect()
        client._receive = lambda data: None  # type: ignore[method-assign]
        client._server.pauseProducing()
        for number in range(20):
            self.publish(b"%02d" % number)
        self.clock.advance(1)
        self.assert_nothing_left()

    def test_drop_oldest_keeps_it_with_the_newest_messages(self) -> None:
        client = self.stall("drop_oldest")
        client._server.resumeProducing()
        self.publish(b"20")
        self.assertEqual(client.messages, [f"{number:02}" for number in range(14, 21)])

    def test_latest_keeps_it_with_the_newest_of_each_channel(self) -> None:
        client = self.stall("latest")
        client._server.resumeProducing()
        self.publish(b"20")
        self.assertEqual(client.messages, ["19", "20"])
