"""The transport of server-sent events: one response that ends when the connection does."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.http import refusal
from ws4redis_tx.core.messages import ICodec
from ws4redis_tx.sse.events import COMMENT, EVENTS
from ws4redis_tx.sse.response import Response


class EventStream(Response):
    """An ``ITransport``: one response with events."""

    codec: ICodec = EVENTS

    def negotiate(self, handshake: Handshake) -> ICodec:
        return EVENTS

    def accept(self, handshake: Handshake) -> None:
        self.begin(self._head(handshake))

    def refuse(self, denied: Denied) -> None:
        # Any status but 200 ends an EventSource for good, and so does an answer that its page may
        # not read.
        if denied.status == 503:
            self.writer.write(self._head(self.session.handshake))
        else:
            # A page asks here why its websocket was refused.
            handshake = getattr(self.session, "handshake", None)
            self.writer.write(refusal(denied, self._sharing(handshake) if handshake else ()))
        self.drop()

    def _head(self, handshake: Handshake) -> bytes:
        return _head(self._sharing(handshake)) + _retry()

    def _sharing(self, handshake: Handshake) -> Sequence[tuple[str, str]]:
        return self.session.server.origins.sharing(handshake)

    def close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = code, reason
            self.session.feed.close()
            self.drop()

    def check_liveness(self) -> None:
        self.session.outbox.write_control(COMMENT)


def _head(headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: text/event-stream",
        # A transformation could hold events back.
        "Cache-Control: no-store, no-transform",
        "X-Accel-Buffering: no",
        *(f"{name}: {value}" for name, value in headers),
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _retry() -> bytes:
    """Milliseconds until a browser reconnects; random, so that they do not all return at once."""
    return b"retry: %d\n\n" % random.randint(1000, 5000)
