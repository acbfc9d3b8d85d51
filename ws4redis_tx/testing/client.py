"""The real server on a fake wire, with a client at the other end.

No socket is opened and no reactor runs. All effects of a call are complete when it returns, except
those that wait for the clock or for the broker.
"""

from __future__ import annotations

import base64
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from string import punctuation
from typing import Any
from urllib.parse import quote, urlsplit

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.interfaces import IAuthorizer, IHooks, NullHooks
from ws4redis_tx.service import WebSocketFactory, make_factory
from ws4redis_tx.testing.broker import MemoryBroker
from ws4redis_tx.testing.wire import SUBPROTOCOL, Frame, Wire, client_frame, read_frame


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
    choices, such as the time of the first heartbeat, are the same in each run. A visitor's session
    that ends (``Admission.expires``) at ``time.time() + 60`` ends after 60 s of this clock.

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
    if config.history or config.presence or config.centrifuge_url:
        broker.use_history(config.history, config.prefix)
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
    # Visitors' sessions end by the test's clock, which begins now.
    epoch = time.time() - clock.seconds()
    factory.session_server.revocations.use_time(lambda: epoch + clock.seconds())
    return factory


def connect(
    factory: WebSocketFactory,
    url: str,
    *,
    cookies: Mapping[str, str] | None = None,
    origin: str | None = None,
    headers: Mapping[str, str] | None = None,
    since: str | None = None,
) -> MemoryClient:
    """A client that connects to ``url`` (``ws://localhost/ws/foobar?subscribe-broadcast``).

    When this returns, the client is ``open``, or ``refused`` with a status, unless the authorizer,
    the subscriber or the broker is still waiting.

    :param cookies: values by name, as a browser sends them.
    :param origin: the origin of the page whose script connects; ``None`` for no browser.
    :param headers: additional headers, which replace the usual ones of the same name. Names are
        case-insensitive.
    :param since: the position to resume from, ``""`` for the present; ``None`` for a client that
        knows no positions.
    """
    again = partial(
        connect, factory, url, cookies=cookies, origin=origin, headers=dict(headers or {})
    )
    if since is not None:
        headers = {"Sec-WebSocket-Protocol": SUBPROTOCOL, **(headers or {})}
        url += f"{'&' if '?' in url else '?'}since={since}"
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.netloc:
        raise ValueError(f"{url!r} is not the URL of a websocket. Write ws://localhost/ws/foobar.")
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
    client._again, client._since = again, since
    client.send_bytes("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
    return client


class MemoryClient:
    """A websocket client at the other end of a fake wire.

    ``messages`` has the received messages: ``str`` for text frames and ``bytes`` for binary ones,
    decompressed. ``refused`` is the HTTP status of a refusal, and ``close_code`` the code of the
    server's close frame; each is ``None`` if there was none. The client answers pings and the
    server's close at once, as browsers do. Set ``answers_pings`` to ``False`` to simulate a client
    whose machine is gone: it answers neither.
    """

    answers_pings = True
    position: str | None = None
    """The position that it has reached; ``None`` if it keeps none."""
    recovered: bool | None = None
    """Whether nothing was missed, as the server told it last; ``None`` if it was not asked."""
    gap: Sequence[str] = ()
    """The audiences on which something may be missing, as the server told it last."""
    on_message: Callable[[str | bytes], object] | None = None
    """Called with each message when it has come."""
    _again: Any = None
    _since: str | None = None

    def __init__(self, factory: WebSocketFactory) -> None:
        self.messages: list[str | bytes] = []
        self.frames: list[Frame] = []
        """Everything that it received with a position, if it keeps one."""
        self.open = False
        self.refused: int | None = None
        self.response_headers: dict[str, str] = {}
        self.close_code: int | None = None
        self._received = b""
        self._gone = False
        self._sending = False
        self._answer = b""  # to the server's close frame
        self._factory: Any = factory
        server: Any = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self._send_close_frame = server.sendCloseFrame
        server.sendCloseFrame = self._receive_close_frame
        self._server = server
        server.makeConnection(_Wire(self))

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

    def reconnect(self) -> MemoryClient:
        """Lose the connection, and connect anew, from the position if it keeps one."""
        self.lose_connection()
        since = self._since if self.position is None else self.position
        client: MemoryClient = self._again(since=since)
        return client

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
        if self._gone:
            return
        outermost, self._sending = not self._sending, True
        try:
            if data:
                self._server.dataReceived(data)
        finally:
            self._sending = not outermost
        if outermost and self._answer and not self._gone:
            answer, self._answer = self._answer, b""
            self._server.dataReceived(answer)

    def _receive_close_frame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        """Let the server send its close frame, and answer that when the server is done: it expects
        no answer while it is still writing, or still reading what the client has sent.
        """
        self._send_close_frame(code, reasonUtf8, isReply)
        if not isReply and self.answers_pings:
            self._answer = client_frame(8, b"" if code is None else code.to_bytes(2, "big"))
            if not self._sending:
                self.send_bytes(b"")

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
        if opcode in (1, 2):
            self._take(payload, opcode == 1)
        elif opcode == 8:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.open = False
        elif opcode == 9 and self.answers_pings:
            self.send_bytes(client_frame(10, payload))
        return True

    def _take(self, payload: bytes, is_text: bool) -> None:
        message: bytes | None = payload
        if self.response_headers.get("sec-websocket-protocol") == SUBPROTOCOL:
            frame = read_frame(payload)
            self.frames.append(frame)
            self.position, message = frame.position, frame.message
            if frame.status is not None:
                self.recovered, self.gap = frame.status["recovered"], frame.status["gap"]
        if message is not None:
            self.messages.append(message.decode() if is_text else message)
            if self.on_message is not None:
                self.on_message(self.messages[-1])


class _Wire(Wire):
    def __init__(self, client: MemoryClient) -> None:
        super().__init__(client._receive, client.lose_connection)
        self._client = client
        self.pings = self.pongs = 0

    def write(self, data: bytes) -> None:
        self.pings += data[:1] == b"\x89"
        self.pongs += data[:1] == b"\x8a"
        super().write(data)
