"""What the server holds for all clients together is bounded: the clients with the most go first."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from tests.support.logs import log_lines
from tests.support.memory import CHANNEL, SlowBroker, WebSocketTests
from tests.support.wires import TEXT, handshake_bytes, unfinished
from ws4redis_tx.core.limits import SLOW_READER_POLICIES
from ws4redis_tx.core.messages import PersistedMessage
from ws4redis_tx.testing import MemoryClient, client_frame

KIB = 1024
MIB = 1024 * KIB


def pieces(client: MemoryClient) -> list[bytes]:
    """What the server keeps of a client's message that has not arrived completely."""
    transport = client._server
    kept = [transport.data]
    for name in ("message_data", "frame_data"):
        kept += getattr(transport, name, None) or []
    return kept


def waiting(client: MemoryClient) -> list[bytes]:
    """What the server keeps for a client."""
    session = client._server.session
    queues = (session.outbox._queue, session.feed._waiting)
    kept = [form for queue in queues if queue for _, form in queue.entries()]
    kept += [form for _, form in session.outbox._first or ()]
    return kept + [form for _, form in session.feed._replayed]


def size(forms: Iterable[bytes]) -> int:
    """Their size in memory, where clients share a message."""
    return sum({id(form): len(form) for form in forms}.values())


class Total(WebSocketTests):
    def held(self) -> int:
        sessions = self.factory.session_server._all()
        clients: list[Any] = [session.transport.transport._client for session in sessions]
        return size(form for each in clients for form in pieces(each) + waiting(each))

    def stall(self, *clients: MemoryClient) -> None:
        """They read nothing from now on."""
        for client in clients:
            client._server.pauseProducing()

    def half_send(self, client: MemoryClient, length: int, at_once: int = 64 * KIB) -> None:
        """The beginning of a message that never ends, of which ``length`` bytes arrive."""
        client.answers_pings = False  # nothing else can be sent within a frame
        frame = client_frame(TEXT, b"x" * (length + 1))[:-1]
        for start in range(0, len(frame), at_once):
            client.send_bytes(frame[start : start + at_once])


class IncomingTests(Total):
    def test_half_sent_messages_of_many_take_no_more_than_the_bound(self) -> None:
        self.use(max_pending_total=4 * MIB)
        clients = [self.connect("publish-broadcast") for _ in range(30)]
        for client in clients:
            self.half_send(client, MIB - 1)
            self.assertLessEqual(self.held(), 4 * MIB)
        closed = [client for client in clients if client.close_code is not None]
        self.assertEqual({client.close_code for client in closed}, {1013})
        self.assertGreaterEqual(len(closed), 26)
        self.assertTrue(clients[-1].open)

    def test_so_do_those_in_small_fragments(self) -> None:
        self.use(max_pending_total=2 * MIB, rate=None)
        clients = [self.connect("publish-broadcast") for _ in range(8)]
        fragments = unfinished(0, b"x" * 64) * 15_000
        for client in clients:
            client.answers_pings = False
            client.send_bytes(unfinished(TEXT, b"x" * 64))
            for start in range(0, len(fragments), 64 * KIB):
                client.send_bytes(fragments[start : start + 64 * KIB])
                self.factory.reactor.advance(0)  # its turn
            count = sum(len(pieces(each)) for each in clients)
            # A fragment takes more than its bytes.
            self.assertLessEqual(self.held() + 33 * count, 2 * MIB)

    def test_what_is_compressed_counts_as_it_is_inflated(self) -> None:
        self.use(max_pending_total=4 * MIB, compression=True, rate=None)
        deflate = zlib.compressobj(9, wbits=-15)
        data = deflate.compress(b"x" * (MIB - 1)) + deflate.flush(zlib.Z_SYNC_FLUSH)
        frame = unfinished(TEXT, data)
        frame = bytes([frame[0] | 0x40]) + frame[1:]
        offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
        for _ in range(10):
            self.connect("publish-broadcast", headers=offer).send_bytes(frame)
            self.assertLessEqual(self.held(), 4 * MIB)

    def test_half_sent_heads_count_too(self) -> None:
        self.use(max_pending_total=100 * KIB)
        head = handshake_bytes(X="x" * 15 * KIB)[:-2]
        clients = []
        for _ in range(20):
            clients.append(MemoryClient(self.factory))
            clients[-1].send_bytes(head)
            self.assertLessEqual(self.held(), 100 * KIB)
        self.assertIn(503, [client.refused for client in clients])
        self.assertEqual({client.refused for client in clients}, {503, None})

    def test_a_message_that_was_complete_counts_no_more(self) -> None:
        self.use(max_pending_total=MIB, rate=None)
        client = self.connect("publish-broadcast")
        for _ in range(50):
            for start in range(2):
                frame = client_frame(TEXT, b"x" * 300 * KIB)
                half = len(frame) // 2
                client.send_bytes(frame[start * half : (start + 1) * half])
        self.assertTrue(client.open)

    def test_what_is_freed_counts_once(self) -> None:
        self.use(max_pending_total=8 * MIB, rate=None)
        clients = [self.connect("publish-broadcast") for _ in range(30)]
        frame = client_frame(TEXT, b"x" * MIB)
        for client in clients:
            for start in range(0, len(frame), 64 * KIB):
                client.send_bytes(frame[start : start + 64 * KIB])
            client.send_bytes(frame[:1])  # the next one begins
        for client in clients:
            for start in range(1, len(frame) - 1, 64 * KIB):
                client.send_bytes(frame[start : min(start + 64 * KIB, len(frame) - 1)])
                self.factory.reactor.advance(0)
            self.assertLessEqual(self.held(), 8 * MIB)
        self.assertGreaterEqual([each.close_code for each in clients].count(1013), 20)

    def test_a_client_that_is_lost_before_its_turn_is_forgotten(self) -> None:
        self.use(rate=None)
        total = self.factory.session_server.pending_total
        client = self.connect("publish-broadcast")
        client.send_bytes(unfinished(TEXT, b"xx"))
        client.send_bytes(client_frame(0x9, b"") * 400)
        client.lose_connection()
        for _ in range(30):
            self.factory.reactor.advance(0)
        self.assertEqual(total._holders, set())

    def test_what_waits_for_redis_counts(self) -> None:
        self.use(SlowBroker("publish"), max_pending_total=2 * MIB, rate=None)
        clients = [self.connect("publish-broadcast") for _ in range(5)]
        for client in clients:
            client.send(b"x" * (MIB - 200))
        self.assertEqual([client.close_code for client in clients].count(1013), 4)

    def test_the_one_with_the_most_goes_first(self) -> None:
        self.use(max_pending_total=MIB)
        small, large, last = (self.connect("publish-broadcast") for _ in range(3))
        self.half_send(small, 100 * KIB)
        self.half_send(large, 700 * KIB)
        self.half_send(last, 400 * KIB)
        self.assertEqual([client.close_code for client in (small, large, last)], [None, 1013, None])

    def test_a_large_frame_is_kept_in_one_piece(self) -> None:
        self.use()
        client = self.connect("publish-broadcast")
        self.half_send(client, 900 * KIB)
        self.assertEqual([len(each) for each in pieces(client) if each], [900 * KIB])

    def test_nothing_is_kept_of_what_a_client_sends_after_its_close(self) -> None:
        self.use()
        client = self.connect("publish-broadcast")
        frame = client_frame(TEXT, b"x" * MIB)
        client.send_bytes(frame[: 500 * KIB])
        client._server.session.close(1008)
        self.assertEqual(size(pieces(client)), 0)
        client.send_bytes(frame[500 * KIB : 900 * KIB])
        self.assertEqual(size(pieces(client)), 0)


class OutgoingTests(Total):
    def test_clients_that_do_not_read_take_no_more_than_the_bound(self) -> None:
        self.use(max_pending_total=4 * MIB)
        clients = []
        for number in range(30):
            clients.append(self.connect("subscribe-broadcast"))
            self.stall(clients[-1])
            self.publish(b"%d" % number * MIB * 3)  # of different sizes, and none is shared
            self.assertLessEqual(self.held(), 4 * MIB)
        closed = [client.close_code for client in clients if client.close_code is not None]
        self.assertEqual(set(closed), {1013})

    def test_a_message_that_many_wait_for_counts_once(self) -> None:
        self.use(max_pending_total=4 * MIB)
        clients = [self.connect() for _ in range(100)]
        self.stall(*clients)
        self.publish(b"x" * MIB)
        self.assertEqual({client.close_code for client in clients}, {None})
        for client in clients:
            client._server.resumeProducing()
        self.assertEqual({len(client.messages) for client in clients}, {1})

    def test_messages_are_dropped_where_that_is_the_policy(self) -> None:
        for policy in SLOW_READER_POLICIES[1:]:
            self.use(max_pending_total=MIB, slow_reader=policy)
            clients = [self.connect(), connect_to(self, "other"), connect_to(self, "third")]
            self.stall(*clients)
            for number in range(20):
                for name in (b"foobar", b"other", b"third"):
                    channel = b"broadcast:" + name
                    self.broker.publish([channel], (b"%02d" % number) * 50 * KIB, 0)
                    self.assertLessEqual(self.held(), MIB)
            self.assertEqual([client.close_code for client in clients], [None] * 3)
            for client in clients:
                client._server.resumeProducing()
            self.assertEqual({client.messages[-1][:2] for client in clients}, {"19"})

    def test_a_client_that_holds_what_cannot_be_dropped_is_closed_in_any_case(self) -> None:
        for policy in SLOW_READER_POLICIES:
            self.use(max_pending_total=MIB, slow_reader=policy)
            clients = [self.connect("publish-broadcast") for _ in range(3)]
            for client in clients:
                self.half_send(client, 900 * KIB)
            self.assertEqual([client.close_code for client in clients], [1013, 1013, None], policy)

    def test_what_is_replayed_counts(self) -> None:
        broker = SlowBroker("fence")
        self.use(broker, max_pending_total=3 * MIB)
        for number in range(8):
            client = self.connect()
            payload = bytes([48 + number]) * MIB
            client._server.session.feed.send(PersistedMessage(payload, CHANNEL))
            self.assertLessEqual(self.held(), 3 * MIB)


class CapacityTests(Total):
    """Bytes that are on their way out of the process, which a close does not free at once."""

    def sending(self, client: MemoryClient, length: int) -> None:
        """The client has stopped reading within a message."""
        client._server.transport.sending = [bytes(length)]
        self.stall(client)

    def setUp(self) -> None:
        super().setUp()
        from ws4redis_tx.websocket import incoming

        self.patch(incoming, "unsent_pieces", lambda wire: getattr(wire, "sending", []))

    def test_beyond_the_bound_newcomers_get_503_until_there_is_room(self) -> None:
        self.use(max_pending_total=4 * MIB)
        clients = [self.connect() for _ in range(6)]
        for client in clients[:5]:
            self.sending(client, MIB)
        newcomer = self.connect()
        self.assertEqual(newcomer.refused, 503)
        self.assertIn("retry-after", newcomer.response_headers)
        codes = [client.close_code for client in clients]
        self.assertEqual(codes.count(1013), 2)
        self.assertTrue(clients[5].open)
        self.clock.advance(3)  # those that were closed are gone
        self.assertTrue(self.connect().open)
        self.assertEqual([client.close_code for client in clients], codes)

    def test_those_that_are_leaving_are_dropped_before_others_are_closed(self) -> None:
        self.use(max_pending_total=4 * MIB)
        clients = [self.connect() for _ in range(7)]
        for client in clients[:5]:
            self.sending(client, MIB)
        leaving = [client for client in clients if client.close_code is not None]
        self.assertEqual([client._gone for client in leaving], [False, False])
        for client in clients[5:]:
            self.sending(client, MIB)
        self.assertEqual([client._gone for client in leaving], [True, True])

    def test_one_line_tells_of_it(self) -> None:
        lines = log_lines(self)
        self.use(max_pending_total=4 * MIB)
        for _ in range(20):
            self.sending(self.connect(), MIB)
            self.clock.advance(1)
        told = [line for line in lines if "WS4REDIS_MAX_PENDING_TOTAL" in line]
        self.assertEqual(len(told), 1)
        self.clock.advance(60)
        for _ in range(20):
            self.sending(self.connect(), MIB)
            self.clock.advance(1)
        told = [line for line in lines if "WS4REDIS_MAX_PENDING_TOTAL" in line]
        self.assertEqual(len(told), 2)


class LookingTests(Total):
    def test_it_is_seldom_added_up(self) -> None:
        """The clients are looked at only when enough has come to reach the bound."""
        self.use(max_pending_total=8 * MIB, rate=None)
        looked = []
        total = self.factory.session_server.pending_total
        look = total._look
        self.patch(total, "_look", lambda: (looked.append(1), look()))
        client = self.connect("publish-broadcast")
        frame = client_frame(TEXT, b"x" * 512 * KIB)
        for _ in range(64):
            client.send_bytes(frame[: 500 * KIB])
            client.send_bytes(frame[500 * KIB :])
        came = 64 * (500 + 512)  # KiB: a message counts when it comes and when it is published
        self.assertLessEqual(len(looked), came // (8 * KIB))
        self.assertTrue(client.open)

    def test_a_client_that_is_gone_keeps_nothing_until_it_is_collected(self) -> None:
        """A connection consists of cycles, and the server seldom collects garbage."""
        self.use()
        client = self.connect("publish-broadcast")
        self.half_send(client, 100 * KIB)
        server = client._server
        head = MemoryClient(self.factory)
        head.send_bytes(b"GET /ws/")
        for each in client, head:
            each.lose_connection()
            self.assertEqual(size(pieces(each)), 0)
        self.assertEqual(server.incoming, 0)

    def test_a_client_that_is_gone_is_forgotten(self) -> None:
        self.use()
        client = self.connect("publish-broadcast")
        self.half_send(client, 10 * KIB)
        total = self.factory.session_server.pending_total
        self.assertEqual(len(total._holders), 1)
        client.lose_connection()
        self.assertEqual(len(total._holders), 0)


def connect_to(test: Total, facility: str) -> MemoryClient:
    from ws4redis_tx.testing import connect

    return connect(test.factory, f"ws://localhost/ws/{facility}?subscribe-broadcast")
