"""No client, user or address gets more than its share."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import DeferredQueue, gatherResults, inlineCallbacks

from tests.security.cases import SecurityTestCase, Visit, connect
from tests.support import TIMEOUT
from tests.support.clients import CLOSE, open_wire
from tests.support.django import in_thread, set_up_django
from tests.support.servers import later
from tests.support.wires import COMPRESSED, TEXT, deflate, handshake_bytes, status_of, unfinished
from ws4redis_tx.testing import client_frame

set_up_django()

from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore

PONG = b"\x8a\x00"


class PeerLimitTests(SecurityTestCase):
    """No client, user or address gets more than its share."""

    @inlineCallbacks
    def serve(self, **limits: Any) -> Any:
        limits = {f"WS4REDIS_{name}": value for name, value in limits.items()}
        limits.setdefault("WS4REDIS_ALLOWED_CHANNELS", "ws4redis_tx.policies.allow_all")
        return (yield super().serve(**limits))

    @inlineCallbacks
    def assert_flood_is_cut(self, flood: bytes) -> Any:
        """``flood`` closes with 1013, and harms nobody else."""
        other = yield self.open("foobar?subscribe-broadcast")
        client = yield self.open("foobar?publish-broadcast")
        client.transport.write(flood)
        self.assertEqual((yield client.closed.addTimeout(TIMEOUT, reactor)), 1013)
        self.redis.command("PUBLISH", "broadcast:foobar", "the end")
        heard = []
        while not heard or heard[-1] != "the end":
            heard.append((yield other.next()))
        self.assertFalse(other.closed.called)
        return heard[:-1]

    @inlineCallbacks
    def test_a_flood_of_messages_is_cut_off(self) -> Any:
        yield self.serve(RATE=(1, 10**6))
        heard = yield self.assert_flood_is_cut(client_frame(1, b"flood") * 1000)
        self.assertLess(len(heard), 100)
        yield self.assert_flood_is_cut(client_frame(9, b"") * 1000)

    @inlineCallbacks
    def test_a_flood_of_bytes_is_cut_off_although_no_message_ever_ends(self) -> Any:
        yield self.serve(RATE=(10**6, 1000))
        heard = yield self.assert_flood_is_cut(
            unfinished(1, b"x" * 100) + unfinished(0, b"x" * 100) * 5000
        )
        self.assertEqual(heard, [])

    @inlineCallbacks
    def test_who_is_merely_busy_is_within_the_default(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar?publish-broadcast&subscribe-broadcast&echo")
        client.transport.write(client_frame(1, b"busy") * 2000)
        self.assertEqual((yield client.take(2000)), ["busy"] * 2000)

    @inlineCallbacks
    def test_bursts_within_the_rate_keep_nobody_waiting(self) -> Any:
        yield self.serve()
        host = f"127.0.0.1:{self.port}"
        wires = yield gatherResults(
            [open_wire(self.port, handshake_bytes(Host=host)) for _ in range(21)]
        )
        *crowd, other = wires

        for wire in crowd:
            wire.transport.write(client_frame(9, b"") * 3000 + CLOSE)
        other.transport.write(client_frame(9, b""))
        while PONG not in other._received:
            yield later()
        answered = sum(len(data) for wire in crowd for data in wire._received) // len(PONG)
        self.assertLess(answered, 20 * 3000 / 2)
        for wire in crowd:
            self.assertEqual((yield wire.ended).count(PONG), 3000)
        other.transport.write(CLOSE)
        yield other.ended

    @inlineCallbacks
    def test_a_user_gets_no_more_websockets_by_logging_in_again(self) -> Any:
        yield self.serve(MAX_CONNECTIONS_PER_USER=2)
        for _ in range(2):
            yield self.open("foobar?subscribe-user", cookies=(yield self.log_in("john")))
        for flags in ("subscribe-user", "subscribe-broadcast", ""):
            status, answer = yield self.refusal(f"/ws/a?{flags}", Cookie=(yield self.john()))
            self.assertEqual(status, 503)
            self.assertIn(b"Retry-After: ", answer)
        yield self.open("foobar?subscribe-user", cookies=(yield self.log_in("mary")))

    @inlineCallbacks
    def test_nor_does_a_session_of_nobody(self) -> Any:
        yield self.serve(MAX_CONNECTIONS_PER_USER=2)

        def visit() -> dict[str, str]:
            session = SessionStore()
            session.create()
            return {"sessionid": session.session_key}

        visitor, other = (yield in_thread(visit)), (yield in_thread(visit))
        for facility in ("a", "b"):
            yield self.open(f"{facility}?subscribe-session", cookies=visitor)
        cookie = f"sessionid={visitor['sessionid']}"
        status, _ = yield self.refusal("/ws/c?subscribe-broadcast", Cookie=cookie)
        self.assertEqual(status, 503)
        yield self.open("a?subscribe-session", cookies=other)

    @inlineCallbacks
    def test_an_address_gets_no_more_by_pretending_to_be_many(self) -> Any:
        asked: list[str] = []

        def ask(request: Any, channels: list[str]) -> list[str]:
            asked.append(request.META["REMOTE_ADDR"])
            return channels

        yield self.serve(MAX_CONNECTIONS_PER_ADDRESS=2, ALLOWED_CHANNELS=ask)
        yield self.open("a?subscribe-broadcast")
        yield self.open("a?subscribe-broadcast", cookies=(yield self.log_in("john")))
        for number in range(5):
            status, answer = yield self.refusal(
                Cookie=(yield self.john()),
                X_Forwarded_For=f"192.0.2.{number}",
                X_Real_IP=f"192.0.2.{number}",
                Forwarded=f"for=192.0.2.{number}",
            )
            self.assertEqual(status, 503)
            self.assertIn(b"Retry-After: ", answer)
        self.assertEqual(asked, ["127.0.0.1"] * 2)

    @inlineCallbacks
    def test_no_address_fills_redis_however_many_sessions_it_has(self) -> Any:
        mebibyte = 1 << 20
        yield self.serve(CLIENT_QUOTA=4 * mebibyte, ALLOWED_CHANNELS=None)

        def visit() -> dict[str, str]:
            session = SessionStore()
            session.create()
            return {"sessionid": session.session_key}

        for number in range(4):
            cookies = yield in_thread(visit)
            for facility in range(3):
                flags = "publish-session&subscribe-session&echo"
                client = yield self.open(f"f{facility}?{flags}", cookies=cookies)
                client.sendMessage(b"%d" % number * (mebibyte - 100))
                self.assertEqual(len((yield client.next())), mebibyte - 100)
        self.assertEqual(len(self.redis.command("KEYS", "session:*")), 3)

    @inlineCallbacks
    def test_a_storm_of_handshakes_is_refused_before_it_costs_a_query(self) -> Any:
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        looked_up: DeferredQueue[str] = DeferredQueue()

        def look_up(request: Any) -> None:
            reactor.callFromThread(looked_up.put, request.path_info)
            go_on.wait(TIMEOUT)
            request.session, request.user = SessionStore(), AnonymousUser()

        yield self.serve(MAX_AUTHORIZATIONS=1, PROCESS_REQUEST=look_up)
        first = yield connect(
            self.port, Visit(handshake_bytes("/ws/first", Host=f"127.0.0.1:{self.port}"))
        )
        self.assertEqual((yield looked_up.get().addTimeout(TIMEOUT, reactor)), "/ws/first")
        answers = yield gatherResults([self.refusal("/ws/storm") for _ in range(50)])
        for status, answer in answers:
            self.assertEqual(status, 503)
            self.assertRegex(answer, rb"\r\nRetry-After: [1-5]\r\n")
        go_on.set()
        self.assertEqual(status_of((yield first.ended)), 101)
        yield self.open("after")
        self.assertEqual((yield looked_up.get()), "/ws/after")
        self.assertEqual(looked_up.pending, [])


class CompressionTests(SecurityTestCase):
    """Messages that are small on the wire and large in memory."""

    @inlineCallbacks
    def code_for(self, *frames: bytes) -> Any:
        """Fire with the code that the server closes with after ``frames``."""
        handshake = handshake_bytes(
            "/ws/foobar?publish-broadcast&subscribe-broadcast&echo",
            Host=f"127.0.0.1:{self.port}",
            Sec_WebSocket_Extensions="permessage-deflate",
        )
        wire = yield open_wire(self.port, handshake)
        wire.transport.write(b"".join(frames) + CLOSE)
        answer = yield wire.ended
        self.assertEqual(answer[:1], b"\x88", "only a close frame")
        return int.from_bytes(answer[2:4], "big")

    @inlineCallbacks
    def test_nobody_can_make_the_server_inflate_unless_that_is_switched_on(self) -> Any:
        service = yield self.serve(WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all")
        code = yield self.code_for(client_frame(COMPRESSED | TEXT, deflate(b"small")))
        self.assertEqual(code, 1002)
        yield self.gone(service)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_a_bomb_is_refused_at_the_size_limit_and_takes_no_memory(self) -> Any:
        service = yield self.serve(
            WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all",
            WS4REDIS_COMPRESSION=True,
            WS4REDIS_MAX_MESSAGE_SIZE=200_000,
        )
        bomb = deflate(bytes(100_000_000))
        pieces = [bomb[start : start + 10_000] for start in range(0, len(bomb), 10_000)]
        in_frames = [unfinished(COMPRESSED | TEXT, pieces[0])]
        in_frames += [unfinished(0, piece) for piece in pieces[1:]]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        code = yield self.code_for(client_frame(COMPRESSED | TEXT, bomb))
        self.assertEqual(code, 1009)
        self.assertEqual((yield self.code_for(*in_frames)), 1009)
        self.assertLess(tracemalloc.get_traced_memory()[1], 5_000_000)
        yield self.gone(service)
        self.assert_nothing_was_had()
