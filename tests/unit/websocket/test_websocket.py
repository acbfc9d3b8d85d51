"""Publishing and closing, in memory: the real protocol on a fake wire; the test moves the clock."""

from __future__ import annotations

from tests.support.memory import SlowBroker, WebSocketTests
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import client_frame


class ClosingReasonTests(WebSocketTests):
    def test_a_reason_is_cut_at_a_whole_character(self) -> None:
        websocket = self.connect()._server
        sent: list[tuple[int, bytes]] = []
        self.patch(websocket, "sendCloseFrame", lambda *frame: sent.append(frame))
        websocket.close(4000, "ä" * 62)
        self.assertEqual(sent, [(4000, ("ä" * 61).encode())])


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
        self.clock.advance(0)  # they are taken in turns
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
        """The connection would never end by itself, and a shutdown would wait for it."""
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
