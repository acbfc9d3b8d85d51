"""The server under test: its own protocol and factory, and a subscriber that echoes.

A client's message takes the usual path: Autobahn's frames, our ``onMessage``, the subscriber, the
session's feed and its outbox. This module adds one thing. Redis carries no types, so a binary
message that happens to be UTF-8 would come back as text, which the Testsuite counts as a failure.
Here the websocket remembers the type of each message, and the echo has the same type. Payload,
length and order are the server's.
"""

from __future__ import annotations

from typing import Any

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.messages import Publication, RedisMessage
from ws4redis_tx.service import WebSocketService, make_service
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker
from ws4redis_tx.websocket.transport import WebSocketTransport

# The Testsuite's largest messages; the server's default limit would rightly refuse them.
LARGEST_MESSAGE = 16 * 1024 * 1024

# Opcodes.
_TEXT, _BINARY = 1, 2


class TypedProtocol(WebSocketTransport):
    """The server's protocol. Remembers whether the current message is binary."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._received_binary = isBinary
        super().onMessage(payload, isBinary)

    def echo(self, message: RedisMessage) -> None:
        publication = Publication(None, message)
        if self._received_binary:
            codec = self.session.outbox.codec
            frame = publication.form(codec)
            publication.forms[codec] = bytes((frame[0] & ~_TEXT | _BINARY,)) + frame[1:]
        self.session.feed.deliver(publication)


class EchoSubscriber(RedisSubscriber):
    """Echoes each message while the server handles it."""

    _websocket: Any = None

    def send_persisted_messages(self, websocket: Any) -> None:
        self._websocket = websocket

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> None:
        self._websocket.transport.echo(message)


def make_echo_service(reactor: Any) -> WebSocketService:
    """Listens on a free port of the loopback; needs no Redis."""
    config = ServerConfig(
        rate=None,
        listen=("tcp:0:interface=127.0.0.1",),
        max_message_size=LARGEST_MESSAGE,
        compression=True,
    )
    service = make_service(
        config, subscriber=EchoSubscriber, broker=MemoryBroker(), reactor=reactor
    )
    service.factory.protocol = TypedProtocol
    return service
