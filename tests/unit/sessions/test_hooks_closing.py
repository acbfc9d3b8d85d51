"""Hooks hear of the end of a websocket, and a drain waits for them."""

from __future__ import annotations

from typing import Any

from tests.support.outboxes import FedOutbox
from tests.support.wires import Written
from tests.unit.sessions.hooked import ALL, BOTH, CHANNEL, URL, HooksTestCase, Patient
from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.core.messages import Joined, Publication
from ws4redis_tx.testing import client_frame, connect
from ws4redis_tx.websocket.frames import DEFLATED, PLAIN


class ClosingTests(HooksTestCase):
    def closing(self, **expected: Any) -> None:
        closing = self.hooks.closing
        found = {name: getattr(closing, name) for name in expected}
        self.assertEqual(found, expected)

    def test_the_clients_code(self) -> None:
        self.use()
        self.connect().send_bytes(client_frame(8, (4001).to_bytes(2, "big") + b"bye"))
        self.closing(code=4001, reason="bye", by_server=False, clean=True)

    def test_no_code(self) -> None:
        self.use()
        self.connect().send_bytes(client_frame(8, b""))
        self.closing(code=1005, reason="", by_server=False, clean=True)

    def test_a_connection_that_was_lost(self) -> None:
        self.use()
        self.connect().lose_connection()
        self.closing(code=1006, by_server=False, clean=False)

    def test_the_clients_code_when_it_did_not_wait_for_the_answer(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        client.send("a")
        client.send_bytes(client_frame(8, (4001).to_bytes(2, "big") + b"bye"))
        client.lose_connection()
        self.hooks.answer()
        self.closing(code=4001, reason="bye", by_server=False, clean=False)

    def test_the_servers_code(self) -> None:
        self.use()
        client = self.connect()
        self.hooks.connections[0].close(4002, "enough")
        self.assertEqual(client.close_code, 4002)
        client.send_bytes(client_frame(8, (4002).to_bytes(2, "big")))
        self.closing(code=4002, reason="enough", by_server=True, clean=True)

    def test_a_subscribers_reason_that_is_too_long(self) -> None:
        self.use()
        client = self.connect()
        client._server.session.close(4000, "\u00e4" * 100)
        client.lose_connection()
        self.closing(code=4000, reason="\u00e4" * 61, by_server=True, clean=False)

    def test_what_is_no_message_is_a_type_error_and_not_so_many_zeros(self) -> None:
        self.use()
        client = self.connect()
        for message in (3, [1, 2], None):
            with self.assertRaises(TypeError):
                self.hooks.connections[0].send(message)
        self.assertEqual(client.messages, [])

    def test_a_code_that_must_not_be_on_the_wire_is_a_value_error(self) -> None:
        self.use()
        client = self.connect()
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000):
            with self.assertRaises(ValueError):
                self.hooks.connections[0].close(code)
        self.assertTrue(client.open)

    def test_sending_and_closing_after_the_end_do_nothing(self) -> None:
        self.use()
        client = self.connect()
        client.close()
        client.lose_connection()
        (connection,) = self.hooks.connections
        connection.send("late")
        connection.close()
        self.assertEqual(client.messages, [])

    def test_how_long_and_how_many(self) -> None:
        self.use()
        client = self.connect()
        self.broker.publish([CHANNEL], b"1", 0)
        self.hooks.connections[0].send("2")
        client.send("3")
        client.send("4")
        self.clock.advance(3)
        client.lose_connection()
        self.closing(sent=4, received=2, dropped=0, seconds=3)

    def test_messages_that_come_together_count_each(self) -> None:
        messages = Joined([Publication(CHANNEL, b"%d" % i) for i in range(3)])
        for codec in (PLAIN, DEFLATED):
            delivery = FedOutbox(Written(), self.fail, 1 << 20, CLOSE, codec=codec)
            delivery.deliver(messages)
            delivery.go_live()
            delivery.deliver(messages)
            self.assertEqual(delivery.feed.sent, 6)

    def test_heartbeats_and_own_messages_without_echo_count_as_nothing(self) -> None:
        self.use(heartbeat="--beat--")
        client = self.connect(BOTH)
        client.send("a")
        self.clock.pump([1] * 10)
        self.assertIn("--beat--", client.messages)
        client.lose_connection()
        self.closing(sent=0, received=1)

    def test_messages_that_waited_are_sent_when_they_are_and_those_that_gave_way_dropped(
        self,
    ) -> None:
        for compression in (False, True):
            self.use(slow_reader="latest", compression=compression)
            self.broker.publish([CHANNEL], b"persisted", 60)
            client = connect(
                self.factory,
                f"{URL}?{ALL}",
                headers={"Sec-WebSocket-Extensions": "permessage-deflate"} if compression else {},
            )
            client._server.pauseProducing()
            for i in range(10):
                self.broker.publish([CHANNEL], b"%d" % i * 100, 0)
            client._server.resumeProducing()
            client._server.pauseProducing()
            self.broker.publish([CHANNEL], b"never sent", 0)
            self.assertEqual(client.messages, ["persisted", "9" * 100])
            client.lose_connection()
            self.closing(sent=2, dropped=9)


class DrainTests(HooksTestCase):
    def test_a_drain_waits_for_the_hooks(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        done = self.factory.drain(1001)
        client.lose_connection()
        self.assertNoResult(done)
        self.hooks.answer()
        self.successResultOf(done)
        self.assertEqual(self.hooks.closing.code, 1001)

    def test_unless_somebody_is_in_a_hurry(self) -> None:
        self.use(Patient())
        self.connect()
        self.hooks.answer()
        done = self.factory.drain(1001)
        self.factory.abort()
        self.successResultOf(done)
        self.hooks.answer()

    def test_also_where_a_connection_is_lost_later_than_it_is_aborted(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        self.patch(client._server.transport, "abortConnection", lambda: None)
        done = self.factory.drain(1001)
        self.factory.abort()
        self.assertNoResult(done)
        client.lose_connection()
        self.successResultOf(done)
        self.hooks.answer()

    def test_after_it_was_opened_up_again_nobody_is_in_a_hurry(self) -> None:
        self.use(Patient())
        self.factory.drain(1001)
        self.factory.abort()
        self.factory.open_up()
        client = self.connect()
        self.hooks.answer()
        done = self.factory.drain(1001)
        client.lose_connection()
        self.assertNoResult(done)
        self.hooks.answer()
        self.successResultOf(done)

    def test_without_websockets_it_waits_for_nothing(self) -> None:
        self.use(Patient())
        self.successResultOf(self.factory.drain(1001))
