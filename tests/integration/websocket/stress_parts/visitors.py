"""One client of the stress test: its end of a socket, and what it must have received by then."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import random
import socket
import ssl
import struct
import sys
import termios
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.testing import client_frame

_CLOSE, _PING, _PONG = 0x88, 0x89, 0x8A
# The first bytes of messages: text and binary, plain and compressed.
_PLAIN, _DEFLATED = (0x81, 0x82), (0xC1, 0xC2)
EVER = sys.maxsize
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Choppy(socket.socket):
    """Takes as much as it likes, whatever there is room for."""

    chance = random.Random()

    def send(self, data: Any, flags: int = 0) -> int:
        match self.chance.randrange(6):
            case 0:
                raise BlockingIOError(errno.EAGAIN, "Not now.")
            case 1 | 2:
                return super().send(memoryview(data)[: self.chance.randint(1, 40)], flags)
            case 3:
                return super().send(memoryview(data)[: self.chance.randint(1, 4000)], flags)
            case _:
                return super().send(data, flags)


@dataclass(frozen=True)
class Kind:
    """The attributes that a client has from its beginning."""

    server: int
    channels: tuple[bytes, ...]
    socket: str
    """``unix``, ``tcp`` or ``tls``."""
    choppy: bool
    buffers: int
    """Bytes that the system keeps for each direction, or thereabouts."""
    high_water: int
    """Bytes that the transport keeps before it asks for a pause, and reads at once."""
    speaks: bytes | None
    """The channel that it publishes on."""
    echo: bool
    deflates: bool


def socket_pair(kind: Kind, seed: str) -> tuple[socket.socket, socket.socket]:
    """The server's end and the client's."""
    if kind.socket == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.socket() as listener, contextlib.ExitStack() as stack:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            theirs = stack.enter_context(socket.socket())
            # Small segments: the system would otherwise wait before it acknowledges the last one.
            theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kind.buffers)
            theirs.connect(listener.getsockname())
            ours, _ = listener.accept()
            stack.pop_all()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, kind.buffers)
    if kind.choppy:
        ours = Choppy(ours.family, ours.type, ours.proto, fileno=ours.detach())
        ours.chance = random.Random(seed)
    for end in (ours, theirs):
        end.setblocking(False)
    return ours, theirs


@dataclass
class Interval:
    """From when to when a client listens to a channel, in numbers of messages.

    A message from ``must_from`` up to ``must_until`` has to arrive, one from ``may_from`` up to
    ``may_until`` may: the others were on their way when it began to listen, or ceased.
    """

    channel: bytes
    may_from: int
    must_from: int = EVER
    must_until: int = EVER
    may_until: int = EVER
    gapless_from: int = 0
    """From this one on, no message may be missing between two others: not before, because they may
    have been for an earlier interval, or because the channel had no listener when they arrived.
    """


@dataclass
class Own:
    """A message of the application's own to one client."""

    payload: bytes
    after: int
    """Messages before it in the stream have lower numbers than ``before``; those after it have this
    number or a higher one.
    """
    before: int


@dataclass(eq=False)
class Visitor:
    number: int
    kind: Kind
    sock: Any
    policy: str
    """One of ``SLOW_READER_POLICIES``."""
    bound: int
    """Bytes that may wait for it, by that policy. Zero: others' bytes may count, too."""
    forms: dict[bytes, bytes]
    """What all clients that take a message compressed have got: the same bytes."""

    protocol: Any = None
    """The server's end."""
    connection: Any = None
    """Its ``SubscriberConnection``."""
    subscriptions: dict[bytes, Any] = field(default_factory=dict)
    closing: Any = None
    hooked: Any = None
    """Its ``IConnection``, if the server has hooks, and its ``Closing`` from them."""
    told: Any = None

    mode: str = "reads"
    """``reads``, ``sips`` (a few bytes a time) or ``waits``."""
    status: int = 0
    deflates: bool = False
    messages: list[bytes] = field(default_factory=list)
    pongs: list[int] = field(default_factory=list)
    code: int | None = None
    """That of the server's close frame."""
    ended: bool = False
    """Whether nothing more can come: the connection is over."""
    whole: bool = False
    """Whether it has read everything, up to the end of the connection."""
    left: bool = False
    """Whether it ended the connection itself, or asked for that."""
    broken: bool = False
    """Whether the connection ended without a close handshake, perhaps within a frame."""
    reset: bool = False
    """Whether bytes on their way may have been lost with the connection."""
    stayed: bool = False
    """Whether it was there, and everything had arrived, when the server was stopped."""
    said: int = 0
    said_payloads: set[bytes] = field(default_factory=set)
    pings: int = 0
    outgoing: bytearray = field(default_factory=bytearray)

    opened_at: int | None = None
    live_at: int | None = None
    closed_at: int | None = None
    """All earlier messages were handed to it before one of both began to close."""
    closed_by: int | None = None
    """The code with which the application closed it."""
    intervals: list[Interval] = field(default_factory=list)
    own: list[Own] = field(default_factory=list)
    _received: bytearray = field(default_factory=bytearray)

    def __repr__(self) -> str:
        return f"client {self.number} ({self.kind}, {self.policy})"

    @property
    def lossy(self) -> bool:
        """Whether messages may be dropped while it does not read."""
        return self.policy != CLOSE

    @property
    def session(self) -> Any:
        return self.protocol.session

    @property
    def there(self) -> bool:
        """Whether it is live, and nobody has begun to close."""
        return (
            self.live_at is not None
            and not self.left
            and self.code is None
            and self.closed_at is None
            and not self.ended
            and not self.session.outbox.closed
        )

    @property
    def waits(self) -> bool:
        """Whether something for it is still here."""
        session = self.session
        return (
            bool(session.outbox.paused or session.transport.outgoing) or self.kind.socket == "tls"
        )

    @property
    def moves(self) -> bool:
        """Whether it may leave and join channels. One that publishes stays: an echo is told from
        its message by the channels that it listens to.
        """
        return self.there and self.kind.speaks is None

    def hears(self, channel: bytes) -> Interval | None:
        """The interval in which it listens to ``channel`` now."""
        return next(
            (x for x in self.intervals if x.channel == channel and x.may_until == EVER), None
        )

    # Its socket

    def write(self, data: bytes) -> None:
        self.outgoing += data
        self.flush()

    def flush(self) -> None:
        while self.outgoing and not self.ended:
            try:
                del self.outgoing[: self.sock.send(self.outgoing)]
            except _NOT_NOW:
                break
            except OSError:
                self.outgoing.clear()

    def read(self, at_most: int = 1 << 16) -> int:
        """Read what is there, and answer it. Return the number of bytes."""
        size = 0
        while not self.ended and size < at_most:
            try:
                data = self.sock.recv(min(at_most, 1 << 16))
            except _NOT_NOW:
                break
            except OSError:  # the server has aborted
                data, self.broken, self.reset = b"", True, True
            size += len(data)
            self._take(data)
        self.flush()
        return size

    def end(self, *, reset: bool) -> None:
        """End the connection without a close handshake."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        self.left = self.broken = self.ended = True

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.left = self.broken = True

    def close(self, code: int) -> None:
        self.left = True
        self.write(client_frame(8, code.to_bytes(2, "big")))

    def on_its_way(self) -> bool:
        """Whether the server or the system still has something for it, or from it."""
        transport = self.session.transport.connection
        if self.ended or self.closing is not None:
            return False
        server_end = getattr(transport, "socket", None)
        if server_end is None or server_end.fileno() < 0:
            return False
        queued = b"".join(
            fcntl.ioctl(server_end.fileno(), which, bytes(4))
            for which in (termios.TIOCOUTQ, termios.FIONREAD)
        )
        return bool(self.session.transport.outgoing or self.outgoing or any(queued))

    # What the server sends

    def _take(self, data: bytes) -> None:
        self._received += data
        if not self.status:
            head, end, rest = bytes(self._received).partition(b"\r\n\r\n")
            if end:
                self.status = int(head.split(b" ")[1])
                self.deflates = b"permessage-deflate" in head
                self._received = bytearray(rest if self.status == 101 else b"")
        if self.status == 101:
            for first, payload in self._frames():
                self._heed(first, payload)
        if not data:
            self.ended = True
            self.sock.close()
            self.whole = not self._received and not self.reset
            if self._received:
                assert self.broken or self.code is None, f"{self}: a frame was cut off"
                self.broken = True

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Take whole frames from what was received: as RFC 6455 has them, and no longer than they
        need to be.
        """
        received = self._received
        while len(received) >= 2:
            first, size, begin = received[0], received[1], 2
            if size == 126:
                begin, size = 4, int.from_bytes(received[2:4], "big")
            elif size == 127:
                begin, size = 10, int.from_bytes(received[2:10], "big")
            if len(received) < begin + size:
                return
            shortest = 2 if size < 126 else 4 if size < 65536 else 10
            assert begin == shortest and first in self._possible(), (
                f"{self}: no frame begins with {bytes(received[:40])!r}, "
                f"after {self.messages[-1:]!r:.80}"
            )
            payload = bytes(received[begin : begin + size])
            del received[: begin + size]
            yield first, payload

    def _possible(self) -> tuple[int, ...]:
        control = (_CLOSE, _PING, _PONG)
        return (*control, *_PLAIN, *(_DEFLATED if self.deflates else ()))

    def _heed(self, first: int, payload: bytes) -> None:
        assert self.code is None, f"{self}: {payload[:40]!r} came after a close frame"
        if first == _CLOSE:
            self.code = int.from_bytes(payload[:2], "big")
            if not self.left:
                self.write(client_frame(8, payload[:2]))
        elif first == _PING:
            self.write(client_frame(10, payload))
        elif first == _PONG:
            self.pongs.append(int(payload))
        else:
            if first in _DEFLATED:
                deflated = payload
                payload = zlib.decompressobj(-15).decompress(deflated + b"\0\0\xff\xff")
                assert self.forms.setdefault(payload, deflated) == deflated
            assert is_text(payload) == (first & 0x0F == 1), f"{self}: {payload[:40]!r} as {first}"
            self.messages.append(payload)


def is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
