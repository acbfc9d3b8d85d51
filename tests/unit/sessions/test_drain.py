"""The end of a server: every client is told, and their returns are spread over time."""

from __future__ import annotations

from tests.support.memory import Waiting, WebSocketTests
from tests.support.wires import handshake_bytes
from ws4redis_tx.testing import MemoryClient


class DrainTests(WebSocketTests):
    def test_the_closes_are_spread_over_the_seconds_given(self) -> None:
        clients = [self.connect() for _ in range(100)]
        gone = self.factory.drain(1012, 5)
        closed = []
        for _ in range(103):
            closed.append(sum(client.close_code == 1012 for client in clients))
            for client in clients:
                if client.close_code:
                    client.lose_connection()
            self.clock.advance(0.05)
        for turn in (0, 25, 50, 75, 100):
            self.assertLessEqual(abs(closed[turn] - turn), 2)
        self.assertEqual(closed[-1], 100)
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_more_clients_than_turns_are_closed_in_time_too(self) -> None:
        clients = [self.connect() for _ in range(333)]
        self.factory.drain(1012, 1)
        self.clock.pump([0.05] * 19)
        self.assertEqual({client.close_code for client in clients}, {1012})

    def test_those_who_leave_meanwhile_are_not_waited_for(self) -> None:
        clients = [self.connect() for _ in range(10)]
        gone = self.factory.drain(1012, 5)
        for client in clients:
            client.lose_connection()
        self.successResultOf(gone)
        self.clock.advance(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_handshakes_under_way_are_answered_with_503(self) -> None:
        authorizer = Waiting()
        self.use(authorizer=authorizer)
        asked, connected = self.connect(), MemoryClient(self.factory)
        connected.send_bytes(handshake_bytes()[:20])
        gone = self.factory.drain(1012, 5)
        self.assertEqual((asked.refused, connected.refused), (503, 503))
        self.successResultOf(gone)
        authorizer.asked[0].callback(None)  # type: ignore[arg-type]
        self.assertEqual(asked.open, False)

    def test_who_has_said_nothing_is_answered_nothing(self) -> None:
        client = MemoryClient(self.factory)
        gone = self.factory.drain(1012, 5)
        self.assertEqual((client.refused, client._server.transport.value()), (None, b""))
        self.successResultOf(gone)

    def test_a_stop_that_may_not_wait_ends_all_connections(self) -> None:
        authorizer = Waiting()
        self.use(authorizer=authorizer)
        self.connect().answers_pings = False
        authorizer.asked[0].callback(None)  # type: ignore[arg-type]
        self.connect()
        gone = self.factory.drain(1012, 5)
        self.assertNoResult(gone)
        self.factory.abort()
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_was_drained_can_open_up_again(self) -> None:
        self.factory.drain(1001)
        self.assertEqual(self.connect().refused, 503)
        self.factory.open_up()
        self.assertTrue(self.connect().open)
