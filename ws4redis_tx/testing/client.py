"""The real server on a fake wire, with a client at the other end.

No socket is opened and no reactor runs. All effects of a call are complete when it returns, except
those that wait for the clock or for the broker.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Mapping
from string import punctuation
from typing import Any
from urllib.parse import quote, urlsplit

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.interfaces import IAuthorizer, IHooks, NullHooks
from ws4redis_tx.service import WebSocketFactory, make_factory
from ws4redis_tx.testing.broker import MemoryBroker


def make_memory_factory(
    config: ServerConfig | None = None,
    *,
    broker: MemoryBroker | None = None,
    authorizer: IAuthorizer | None = None,
    subscriber: Any = None,
    hooks: IHooks | None = None,
    clock: Clock | None = None,
) -> WebSocketFactory:
    """The server's own factory, over a broker in memory and a ``clock``.

    The clock, ``factory.reactor``, stands still until a test calls its ``advance``. It drives the
    server's timers, and those of ``factory.broker`` unless the broker has its own clock. Random
    choices, such as the time of the first heartbeat, are the same in each run.

    There are no threads, so Django's signals are not sent and Django's visitors cannot be looked
    up: with ``config.django``, pass an ``authorizer``, or ``ConfigError`` is raised.
    """
    config = config or ServerConfig()
    if config.django and authorizer is None:
        raise ConfigError(
            "authorizer",
            "is missing: Django's visitors are looked up in threads, which a test in memory lacks",
            "Pass an authorizer that identifies the client, or test with LiveServer.",
        )
    clock = clock or Clock()
    broker = broker or MemoryBroker()
    if broker.clock is None:
        broker.clock = clock
    factory = make_factory(
        config,
        broker=broker,
        authorizer=authorizer,
        subscriber=subscriber,
        hooks=NullHooks() if hooks is None else hooks,
        reactor=clock,
    )
    # Heartbeats and pings begin at random times, but at the same times in each test run.
    factory.session_server.random.seed(0)
    return factory


def connect(
    factory: WebSocketFactory,
    url: str,
    *,
    cookies: Mapping[str, str] | None = None,
    origin: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> MemoryClient:
    """A client that connects to ``url`` (``ws://localhost/ws/foobar?subscribe-broadcast``).

    When this returns, the client is ``open``, or ``refused`` with a status, unless the authorizer,
    the subscriber or the broker is still waiting.

    :param cookies: values by name, as a browser sends them.
    :param origin: the origin of the page whose script connects; ``None`` for no browser.
    :param headers: additional headers, which replace the usual ones of the same name. Names are
        case-insensitive.
    """
    parts = urlsplit(url)
    fields = {
        "Host": parts.netloc,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    if origin is not None:
        fields["Origin"] = origin
    if cookies:
        fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    for name, value in (headers or {}).items():
        fields = {each: fields[each] for each in fields if each.lower() != name.lower()}
        fields[name] = value
    target = quote(parts.path + (f"?{parts.query}" if parts.query else ""), safe=punctuation)
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    client = MemoryClient(factory)
    client.send_bytes("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
    return client


class MemoryClient:
    """A websocket client at the other end of a fake wire.

    ``messages`` has the received messages: ``str`` for text frames and ``bytes`` for binary ones,
    decompressed. ``refused`` is the HTTP status of a refusal, and ``close_code`` the code of the
    server's close frame; each is ``None`` if there was none. The client answers pings, as browsers
    do. Set ``answers_pings`` to ``False`` to simulate a client whose machine is gone.
    """

    answers_pings = True

    def __init__(self, factory: WebSocketFactory) -> None:
        self.messages: list[str | bytes] = []
        self.open = False
        self.refused: int | None = None
        self.response_headers: dict[str, str] = {}
        self.close_code: int | None = None
        self._received = b""
        self._gone = False
        self._factory: Any = factory
        server: Any = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        server.makeConnection(_Wire(self))
        self._server = server

    def send(self, message: str | bytes) -> None:
        """Send a text or a binary frame."""
        payload = message.encode() if isinstance(message, str) else message
        self.send_bytes(client_frame(1 if isinstance(message, str) else 2, payload))

    def close(self, code: int = 1000) -> None:
        """Send a close frame; the server answers it and ends the connection."""
        self.send_bytes(client_frame(8, code.to_bytes(2, "big")))

    def flush(self) -> None:
        """Deliver everything in flight between the server and its broker, and everything that this
        causes: an answer to the handshake, messages, a close frame.
        """
        self._factory.broker.flush()

    def lose_connection(self) -> None:
        """Lose the connection without a close frame."""
        if not self._gone:
            self._gone = True
            self.open = False
            self._server.connectionLost(Failure(ConnectionDone()))

    def send_bytes(self, data: bytes) -> None:
        """Send raw bytes, well-formed or not. The server takes many frames in turns, as it does for
        all clients: ``factory.reactor.advance(0)`` makes it take the rest.
        """
        if not self._gone:
            self._server.dataReceived(data)

    def _receive(self, data: bytes) -> None:
        self._received += data
        if not self.open and self.refused is None:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            self._read_response(head.decode("latin-1"))
            self._received = rest
        while self.open and self._read_frame():
            pass

    def _read_response(self, head: str) -> None:
        status, *lines = head.split("\r\n")
        code = int(status.split(" ")[1])
        self.response_headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        if code == 101:
            self.open = True
        else:
            self.refused = code

    def _read_frame(self) -> bool:
        """Read a frame, which from our server is a whole message without a mask."""
        data = self._received
        if len(data) < 2:
            return False
        size, start = data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if len(data) < max(start, start + size):
            return False
        opcode, payload = data[0] & 0x0F, data[start : start + size]
        if data[0] & 0x40:
            payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
        self._received = data[start + size :]
        if opcode == 1:
            self.messages.append(payload.decode())
        elif opcode == 2:
            self.messages.append(payload)
        elif opcode == 8:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.open = False
        elif opcode == 9 and self.answers_pings:
            self.send_bytes(client_frame(10, payload))
        return True


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A whole, final, masked frame (with a mask of zeros) as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


class _Wire(StringTransport):
    """The server's end of the wire. The client reads each write at once, and sees each close."""

    def __init__(self, client: MemoryClient) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self._client = client

    pings = 0
    pongs = 0

    def write(self, data: bytes) -> None:
        self.pings += data[:1] == b"\x89"
        self.pongs += data[:1] == b"\x8a"
        self._client._receive(data)

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        self._client.lose_connection()

    def abortConnection(self) -> None:
        self._client.lose_connection()
