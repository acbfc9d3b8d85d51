"""A request with a body, which is read after its head was judged."""

from __future__ import annotations

from collections.abc import Iterable
from http.client import responses
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.http import HttpRequest
from ws4redis_tx.emulation.framing import LINES
from ws4redis_tx.sessions.opening_handshake import NOTHING_MAY_FOLLOW
from ws4redis_tx.sessions.session import Session
from ws4redis_tx.sse.response import DROP_TIMEOUT, Response

MOST_BYTES = 64 * 1024
"""Of a body."""

_DIGITS = frozenset("0123456789")


class Request(Response):
    """The connection of one request. Reads the body, of at most ``MOST_BYTES`` or the limit for
    messages, and writes an answer.
    """

    codec: Any = LINES

    def __init__(self, session: Session, request: HttpRequest, rest: bytes) -> None:
        """``rest`` came behind the head."""
        super().__init__(session)
        self._request = request
        self._body = bytearray(rest)
        self._size = 0
        self._arrived: Deferred[bytes] | None = None
        self._answered = False
        lengths = ("content-length", "transfer-encoding")
        self._whole = not any(name in lengths for name, _ in request.headers)
        self._linger: Any = None

    @property
    def incoming(self) -> int:
        return len(self._body)

    def read_body(self) -> Deferred[bytes]:
        """Fire with the whole body. Raises ``Denied`` for one that is too large or without a
        length.
        """
        sizes = {value for name, value in self._request.headers if name == "content-length"}
        if any(name == "transfer-encoding" for name, _ in self._request.headers):
            raise Denied(411, "The request must tell the length of its body.")
        size = sizes.pop() if sizes else "0"
        if sizes or not size or not _DIGITS.issuperset(size):
            raise Denied(400, "The length of the body is malformed.")
        most = min(MOST_BYTES, self.session.server.config.max_message_size)
        # Longer digits than those of the limit are not even converted.
        self._size = most + 1 if len(size) > len(str(most)) else int(size)
        if self._size > most:
            raise Denied(413, f"The body exceeds {most} bytes.", detail="a body that is too large")
        self.session.grew(len(self._body))
        if len(self._body) >= self._size:
            return succeed(self._take_body())
        self._arrived = Deferred()
        return self._arrived

    def _take_body(self) -> bytes:
        body, self._body = bytes(self._body), bytearray()
        self._whole = True
        if len(body) > self._size:
            raise Denied(400, NOTHING_MAY_FOLLOW)
        return body

    def answer(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer without a body, and end the connection."""
        lines = [
            f"HTTP/1.1 {status} {responses[status]}",
            *(f"{name}: {value}" for name, value in headers),
            "Cache-Control: no-store",
            "Connection: close",
            *([] if status == 204 else ["Content-Length: 0"]),
        ]
        self._answered = True
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if self._whole:
            self.drop()
        else:
            # The system resets a connection that is closed before all was read, and the client
            # would not see the answer.
            self._body.clear()
            reactor = self.session.server.reactor
            self._linger = reactor.callLater(DROP_TIMEOUT, self.drop)

    def refuse(self, denied: Denied) -> None:
        self.answer(denied.status, denied.headers)

    # Called by Twisted

    def dataReceived(self, data: bytes) -> None:
        if self._answered:
            return
        if self._arrived is None:
            super().dataReceived(data)
            return
        self._body += data
        self.session.grew(len(data))
        if len(self._body) >= self._size:
            arrived, self._arrived = self._arrived, None
            try:
                body = self._take_body()
            except Denied as denied:
                arrived.errback(Failure(denied))
            else:
                arrived.callback(body)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        super().connectionLost(reason)
