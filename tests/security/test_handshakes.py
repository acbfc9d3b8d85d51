"""Bytes of a handshake that some servers misread."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from tests.security.cases import Conversation, SecurityTestCase, connect
from tests.support import TIMEOUT
from tests.support.clients import CLOSE, exchange, open_wire
from tests.support.wires import handshake_bytes, status_of

# Python's own str.splitlines() splits lines at these; nobody else does.
LINE_BREAKS = (b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x85")


@implementer(IPullProducer)
class Flood(Conversation):
    """A handshake whose headers do not end before ``left`` bytes are out."""

    left = 21 * 1024 * 1024

    def connectionMade(self) -> None:
        self.transport.write(handshake_bytes().removesuffix(b"\r\n"))
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.left > 0:
            self.left -= 65536
            self.transport.write(b"X-Note: " + b"x" * 65526 + b"\r\n")
        else:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is over; nothing to do."""


class HandshakeBytesTests(SecurityTestCase):
    """Bytes that some servers misread."""

    @inlineCallbacks
    def test_no_byte_inside_a_value_starts_another_header(self) -> Any:
        yield self.serve()
        john = (yield self.john()).encode()
        plain = handshake_bytes("/ws/foobar?subscribe-user", Host=f"127.0.0.1:{self.port}")
        for byte in (*LINE_BREAKS, b"\n", b"\r", b"\0"):
            for start in (b"X-Note: a", b"User-Agent: a", b"X-Note:"):
                smuggled = start + byte + b"Cookie: " + john + b"\r\n\r\n"
                answer = yield exchange(self.port, plain.removesuffix(b"\r\n") + smuggled)
                # 0x85 is a character of ISO 8859-1: the header is well-formed.
                self.assertEqual(status_of(answer), 401 if byte == b"\x85" else 400, byte)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_21_mib_without_an_end_of_the_headers_are_cut_off(self) -> Any:
        service = yield self.serve()
        flood = yield connect(self.port, Flood())
        answer = yield flood.ended.addTimeout(TIMEOUT, reactor)
        # Bytes still in flight may have reset the connection and discarded the answer.
        self.assertIn(answer[:12], (b"", b"HTTP/1.1 400"))
        self.assertGreater(flood.left, 0, "all of it was read")
        self.assertFalse(service.factory.session_server.opening)

    @inlineCallbacks
    def test_a_second_request_while_the_first_is_authorized_opens_nothing(self) -> Any:
        asked: Deferred[None] = Deferred()
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        calls: list[str] = []

        def slow(request: Any, channels: list[str]) -> list[str]:
            calls.append(request.path_info)
            reactor.callFromThread(asked.callback, None)
            go_on.wait(TIMEOUT)
            return channels

        service = yield self.serve(WS4REDIS_ALLOWED_CHANNELS=slow)
        host = f"127.0.0.1:{self.port}"
        wire = yield connect(self.port, Conversation())
        wire.transport.write(handshake_bytes("/ws/one?subscribe-broadcast", Host=host))
        yield asked.addTimeout(TIMEOUT, reactor)
        wire.transport.write(handshake_bytes("/ws/two?subscribe-broadcast", Host=host))
        answer = yield wire.ended.addTimeout(TIMEOUT, reactor)
        go_on.set()
        yield self.drained(service)
        self.assertEqual(status_of(answer), 400)
        self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        self.assertEqual(calls, ["/ws/one"])
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_a_plain_get_redirects_nowhere(self) -> Any:
        yield self.serve()
        for path in ("/ws/?", "/ws/foobar?", "/?"):
            request = (
                f"GET {path}redirect=https%3A%2F%2Fevil.example&after=1 HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{self.port}\r\n\r\n"
            ).encode()
            answer = yield exchange(self.port, request)
            self.assertEqual(status_of(answer), 404 if path == "/?" else 426)
            for word in (b"evil", b"Location", b"Refresh", b"<"):
                self.assertNotIn(word.lower(), answer.lower())

    @inlineCallbacks
    def test_a_header_with_an_underscore_is_none_of_djangos(self) -> Any:
        seen: list[Any] = []

        def look(request: Any, channels: list[str]) -> list[str]:
            seen.append(request)
            return []

        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=look)
        data = handshake_bytes(Host=f"127.0.0.1:{self.port}", X_Real_Ip="192.0.2.7").replace(
            b"Upgrade:",
            b"X_Real_IP: 6.6.6.6\r\nRemote_User: admin\r\nX-Real_IP: 6.6.6.6\r\nUpgrade:",
            1,
        )
        wire = yield open_wire(self.port, data)
        wire.transport.write(CLOSE)
        yield wire.ended
        (request,) = seen
        self.assertEqual(request.META["HTTP_X_REAL_IP"], "192.0.2.7")
        self.assertNotIn("HTTP_REMOTE_USER", request.META)
        self.assertNotIn("6.6.6.6", request.META.values())
