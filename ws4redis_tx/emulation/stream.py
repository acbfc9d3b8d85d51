"""The transport of a client whose messages come in a response without end. It sends its own by
POSTs, which name it by a secret.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import MutableMapping
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.http import HttpRequest
from ws4redis_tx.core.messages import ICodec
from ws4redis_tx.emulation.framing import END, Framing
from ws4redis_tx.emulation.request import Request
from ws4redis_tx.protocols.centrifuge.wire.codec import PushCodec
from ws4redis_tx.sessions.session import Session

EARLIEST, LATEST = 1.0, 3.0
"""Seconds before a client is told of its end that was not answered yet: releases of the JavaScript
library up to 5.7.4 come back at once, hundreds of times a second.
"""

Streams = MutableMapping[str, "EmulatedStream"]
"""The open streams of a process, by the digests of their secrets."""

_random = Random()


def digest(secret: str) -> str:
    """The name of a stream among servers: whoever hears it there cannot send as the client."""
    return hashlib.sha256(secret.encode()).hexdigest()


class EmulatedStream(Request):
    """An ``ITransport``. ``stream`` tells its client where to send commands."""

    def __init__(
        self,
        session: Session,
        request: HttpRequest,
        rest: bytes,
        framing: Framing,
        node: str,
        streams: Streams,
    ) -> None:
        super().__init__(session, request, rest)
        self.codec: ICodec = framing
        secret = secrets.token_hex(16)
        self.stream = {"session": secret, "node": node}
        self._framing = framing
        self._name = digest(secret)
        self._streams = streams
        self._last_words: Any = None
        self.first = b""
        """The commands that came with the request."""
        self.accepted: Deferred[Any]
        """Fires when the client is accepted."""

    def negotiate(self, handshake: Handshake) -> ICodec:
        return self._framing

    def accept(self, handshake: Handshake) -> None:
        self._streams[self._name] = self
        lines = [
            "HTTP/1.1 200 OK",
            f"Content-Type: {self._framing.content_type}",
            "Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0",
            "X-Accel-Buffering: no",
            *(f"{name}: {value}" for name, value in self._sharing(handshake)),
            "Transfer-Encoding: chunked",
            "Connection: close",
        ]
        self.begin(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self._framing.first)
        # When the protocol knows of it, too.
        self.accepted.addCallback(lambda _: self.take(self.first))

    def _sharing(self, handshake: Handshake) -> list[tuple[str, str]]:
        return self.session.server.origins.sharing(handshake)

    def take(self, payload: bytes) -> None:
        """Take what a POST brought, as from a frame of a websocket."""
        session = self.session
        if not session.speaks or not session.within_rate(messages=1, size=len(payload)):
            return
        if session.unacknowledged > session.outbox.max_pending:
            session.flooded()  # reading less would not help
        else:
            session.received(payload)

    def close(self, code: int, reason: str) -> None:
        if self._closing is not None:
            return
        self._closing = code, reason
        connection = self.session.state
        self.session.feed.close()
        codec: PushCodec = self.session.outbox.codec
        last = codec.push({"disconnect": {"code": code, "reason": reason}}) + END
        if connection is not None and connection.answered:
            self._end(last)
        else:
            reactor, delay = self.session.server.reactor, _random.uniform(EARLIEST, LATEST)
            self._last_words = reactor.callLater(delay, self._end, last)

    def _end(self, last: bytes) -> None:
        self._last_words = None
        self.writer.write(last)
        self.drop()

    def check_liveness(self) -> None:
        """The protocol does."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._streams.pop(self._name, None)
        if self._last_words is not None:
            self._last_words.cancel()
        super().connectionLost(reason)
