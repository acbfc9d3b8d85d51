"""No peer takes more than its share; the excess is refused before it costs much."""

from __future__ import annotations

import zlib
from typing import Any

from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import StringTransport

from tests.support.memory import AllowAll, SlowBroker, Waiting, WebSocketTests
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.scheduling.fifo_limiter import AT_ONCE
from ws4redis_tx.testing import MemoryClient, client_frame


class As(AllowAll):
    """Visitors are the user and the session in their query: ``?user=…&session=…``."""

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        query = dict(part.split("=") for part in handshake.query.split("&") if "=" in part)
        identity = Identity(query.get("session"), query.get("user"))
        return Admission(identity, (), PlainRequest(handshake.path_info, identity))


class ConnectionLimitTests(WebSocketTests):
    def test_a_user_has_so_many_websockets_whatever_the_session(self) -> None:
        self.use(authorizer=As(), max_connections_per_user=2)
        first = self.connect("user=john&session=1")
        self.connect("user=john&session=2")
        self.assertEqual(self.connect("user=john&session=3").refused, 503)
        self.assertTrue(self.connect("user=mary").open)
        first.close()
        self.assertTrue(self.connect("user=john&session=3").open)

    def test_an_address_has_so_many_and_is_refused_before_anybody_is_asked(self) -> None:
        authorizer = Waiting()
        self.use(
            authorizer=authorizer, max_connections_per_address=2, trusted_proxies=("127.0.0.1",)
        )
        headers = {"X-Forwarded-For": "192.0.2.7"}
        clients = [self.connect(headers=headers) for _ in range(3)]
        self.assertEqual(clients[2].refused, 503)
        self.assertEqual(len(authorizer.asked), 2)
        self.connect(headers={"X-Forwarded-For": "192.0.2.8"})
        self.assertEqual(len(authorizer.asked), 3)

    def test_an_ipv6_network_of_64_bits_is_one_address(self) -> None:
        self.use(max_connections_per_address=1, trusted_proxies=("127.0.0.1",))
        for forwarded, refused in (
            ("2001:db8:1:2::1", None),
            ("2001:db8:1:2:3:4:5:6", 503),
            ("[2001:db8:1:2::7]:55123", 503),
            ("2001:db8:1:3::1", None),
            ("192.0.2.7", None),
            ("::ffff:192.0.2.7", 503),
            ("::ffff:192.0.2.8", None),
        ):
            client = self.connect(headers={"X-Forwarded-For": forwarded})
            self.assertEqual(client.refused, refused, forwarded)

    def test_so_it_is_without_a_proxy(self) -> None:
        self.use(max_connections_per_address=1)
        for host, status in (
            ("2001:db8:1:2::1", 101),
            ("2001:db8:1:2:3:4:5:6", 503),
            ("::ffff:192.0.2.7", 101),
            ("192.0.2.7", 503),
        ):
            wire = StringTransport(peerAddress=IPv6Address("TCP", host, 1))
            self.patch(wire, "unregisterProducer", lambda: None)
            websocket = self.factory.buildProtocol(wire.getPeer())
            websocket.makeConnection(wire)
            websocket.dataReceived(handshake_bytes())
            self.assertEqual(status_of(wire.value()), status, host)

    def test_what_was_refused_or_left_counts_no_more(self) -> None:
        authorizer = Waiting()
        self.use(authorizer=authorizer, max_connections_per_address=1)
        for _ in range(5):
            self.connect().lose_connection()
            self.assertEqual(self.connect(origin="https://evil.example").refused, 403)
        self.assertEqual(len(authorizer.asked), 5)
        self.assertEqual(len(self.factory.session_server.addresses), 0)
        self.assertEqual(len(self.factory.session_server.authorizations), 0)

    def test_a_storm_of_reconnects_is_refused_before_it_costs_a_query(self) -> None:
        authorizer = Waiting()
        self.use(authorizer=authorizer, max_authorizations=3)
        clients = [self.connect() for _ in range(10)]
        self.assertEqual([client.refused for client in clients], [None] * 3 + [503] * 7)
        self.assertIn(clients[3].response_headers["retry-after"], "12345")
        self.assertEqual(len(authorizer.asked), 3)
        authorizer.asked[0].callback(None)  # type: ignore[arg-type]
        self.assertTrue(clients[0].open)
        self.connect()
        self.assertEqual(len(authorizer.asked), 4)

    def test_ten_thousand_at_once_are_all_served_in_the_order_they_came(self) -> None:
        authorizer = Waiting()
        self.use(authorizer=authorizer, recheck=0)
        opened: list[Any] = []
        server = self.factory.session_server
        tell = server.opened
        self.patch(server, "opened", lambda each: (opened.append(each), tell(each)))
        clients = [self.connect("") for _ in range(10_000)]
        for number in range(10_000):
            if number % 100 == 0:
                self.clock.advance(0.5)  # each wait is longer than a handshake's timeout
            self.assertLessEqual(len(authorizer.asked), number + AT_ONCE)
            authorizer.asked[number].callback(None)  # type: ignore[arg-type]
        self.assertEqual(opened, [client._server.session for client in clients])

    def test_a_head_that_does_not_end_is_dropped_however_many_wait(self) -> None:
        self.use(authorizer=Waiting())
        for _ in range(AT_ONCE + 1):
            self.connect()
        slow = MemoryClient(self.factory)
        for byte in handshake_bytes()[:4]:
            slow.send_bytes(bytes([byte]))
            self.clock.advance(1)
        self.assertFalse(slow._gone)
        self.clock.advance(1)
        self.assertTrue(slow._gone)
        self.assertIsNone(slow.refused)

    def test_an_authorizer_that_answers_nobody_keeps_nobody(self) -> None:
        authorizer = Waiting()
        self.use(authorizer=authorizer)
        clients = [self.connect() for _ in range(AT_ONCE + 50)]
        self.clock.advance(4.9)
        self.assertEqual({client.refused for client in clients}, {None})
        self.clock.advance(0.1)
        self.assertEqual({client.refused for client in clients}, {503})
        self.assertEqual(len(authorizer.asked), AT_ONCE)
        self.assertEqual(len(self.factory.session_server.authorizations), 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_authorizer_has_its_time_also_where_its_answer_waits_for_another(self) -> None:
        class Chained(Waiting):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                return succeed(None).addCallback(
                    lambda _: super(Chained, self).authorize(handshake, rights)
                )

        self.use(authorizer=Chained())
        client = self.connect()
        self.clock.advance(5)
        self.assertEqual(client.refused, 503)

    def test_subscriptions_have_their_time_too(self) -> None:
        self.use(SlowBroker("listen"))
        client = self.connect()
        self.clock.advance(5)
        self.assertEqual(client.refused, 503)

    def test_who_left_without_an_answer_does_not_count_as_answered(self) -> None:
        authorizer = Waiting()
        self.use(authorizer=authorizer)
        clients = [self.connect() for _ in range(AT_ONCE + 50)]
        self.clock.advance(1)
        clients.pop(0).lose_connection()
        self.clock.advance(4)
        waiting = clients.pop(AT_ONCE - 1)  # its turn came instead
        self.assertEqual({client.refused for client in clients}, {503})
        self.assertIsNone(waiting.refused)
        self.assertEqual(len(authorizer.asked), AT_ONCE + 1)

    def test_who_was_refused_counts_as_answered_as_much_as_who_was_let_in(self) -> None:
        for answer in (Denied(401, "Log in."), ValueError("deliberate")):
            authorizer = Waiting()
            self.use(authorizer=authorizer)
            clients = [self.connect() for _ in range(AT_ONCE + 50)]
            self.clock.advance(1)
            authorizer.asked[0].errback(answer)
            self.assertEqual(len(authorizer.asked), AT_ONCE + 1)
            self.clock.advance(4)
            self.assertEqual({client.refused for client in clients[1:AT_ONCE]}, {503})
            self.assertEqual({client.refused for client in clients[AT_ONCE:]}, {None})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_those_whose_turn_has_not_come_are_refused_by_a_drain_and_nobody_is_asked(self) -> None:
        authorizer = Waiting()
        self.use(authorizer=authorizer)
        clients = [self.connect() for _ in range(AT_ONCE + 50)]
        self.factory.drain(1012)
        self.assertEqual({client.refused for client in clients}, {503})
        self.assertEqual(len(authorizer.asked), AT_ONCE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_leaves_is_not_looked_up_any_more(self) -> None:
        cancelled: list[object] = []

        class Patient(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                return Deferred(cancelled.append)

        self.use(authorizer=Patient())
        self.connect()
        client = self.connect()
        client.lose_connection()
        self.clock.advance(5)  # the other client's handshake has taken too long
        self.assertEqual(len(cancelled), 2)
        self.assertEqual(self.flushLoggedErrors(), [])


class RateTests(WebSocketTests):
    def test_a_client_that_sends_too_many_messages_is_closed_with_1013(self) -> None:
        self.use(rate=(1, 1_000_000))
        other = self.connect()
        client = self.connect("publish-broadcast")
        for number in range(12):
            client.send(str(number))
        self.assertEqual(client.close_code, 1013)
        self.assertEqual(other.messages, [str(number) for number in range(10)])

    def test_pings_and_heartbeats_count(self) -> None:
        for data in (client_frame(9, b""), client_frame(1, b"--beat--")):
            self.use(rate=(1, 1_000_000), heartbeat="--beat--")
            client = self.connect()
            for _ in range(11):
                client.send_bytes(data)
            self.assertEqual(client.close_code, 1013)

    def test_pongs_and_fragments_count_too(self) -> None:
        fragment = bytes([0x00]) + client_frame(1, b"")[1:]
        for first, data in ((b"", client_frame(10, b"")), (b"\x01" + fragment[1:], fragment)):
            self.use(rate=(1, 1_000_000))
            client = self.connect("publish-broadcast")
            client.send_bytes(first)
            for _ in range(11):
                client.send_bytes(data)
            self.assertEqual(client.close_code, 1013)

    def test_what_was_compressed_counts_as_it_is(self) -> None:
        self.use(rate=(1000, 1000), compression=True)
        offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
        client = self.connect("publish-broadcast", headers=offer)
        deflate = zlib.compressobj(9, wbits=-15)
        data = deflate.compress(b"x" * 6000) + deflate.flush(zlib.Z_SYNC_FLUSH)
        frame = bytes([0xC1]) + client_frame(1, data[:-4])[1:]
        client.send_bytes(frame)
        self.assertTrue(client.open)
        client.send_bytes(frame)
        self.assertEqual(client.close_code, 1013)

    def test_a_client_within_its_rate_stays(self) -> None:
        self.use(rate=(1, 1_000_000))
        client = self.connect("publish-broadcast")
        for number in range(100):
            client.send(str(number))
            self.clock.advance(1)
        self.assertTrue(client.open)

    def test_no_rate_no_limit(self) -> None:
        self.use(rate=None)
        client = self.connect("publish-broadcast")
        for _ in range(30_000):
            client.send("")
        self.assertTrue(client.open)

    def test_a_client_that_sends_nothing_costs_no_allowance(self) -> None:
        self.assertIsNone(self.connect()._server.session._limits)
