"""A message on its way from Redis to the sockets, and the websocket frame it becomes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ws4redis_tx.websocket.compression import deflate

_TEXT, _BINARY = 0x81, 0x82
_COMPRESSED_TOGETHER = 1 << 14  # bytes of a batch, for which it takes a few milliseconds
_SMALL, _MEDIUM, _LARGE = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
PING = b"\x89\x00"
# Of a frame whose second byte says that its size follows.
_HEADER_SIZES = {126: 4, 127: 10}
# In the first byte of a frame whose payload is compressed.
_COMPRESSED = 0x40


def server_frame(payload: bytes) -> bytes:
    """The unmasked, unfragmented websocket frame for ``payload`` (RFC 6455, section 5.2).

    Redis carries bytes and no type: what is valid UTF-8 becomes a text frame, the rest binary.
    """
    opcode = _TEXT
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            opcode = _BINARY
    return _frame(opcode, payload)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return _SMALL.pack(first, size) + payload
    if size < 65536:
        return _MEDIUM.pack(first, 126, size) + payload
    return _LARGE.pack(first, 127, size) + payload


def pong_frame(payload: bytes) -> bytes:
    """The frame that answers a ping with ``payload``, which is 125 bytes at most."""
    return b"\x8a" + bytes((len(payload),)) + payload


class Publication:
    """One message on one channel, as the frame that all its receivers get; those with whom
    compression is agreed on get its ``compressed`` form.

    ``channel`` is ``None`` for a message that did not come from Redis. ``sender`` is the listener
    that published it and asked for no echo, if there is one.
    """

    __slots__ = ("channel", "compressed", "frame", "sender")

    def __init__(self, channel: bytes | None, payload: bytes, sender: object = None) -> None:
        self.channel = channel
        self.frame = server_frame(payload)
        self.sender = sender
        self.compressed: Compressed | None = None
        """As ``compress`` has made it."""

    def compress(self) -> Compressed:
        """The same message for who takes it compressed; made once."""
        if self.compressed is None:
            self.compressed = Compressed(self)
        return self.compressed

    @property
    def payload(self) -> bytes:
        """The message's bytes. Cut out of the frame: what waits is kept once."""
        return self.frame[_HEADER_SIZES.get(self.frame[1], 2) :]

    @property
    def parts(self) -> Sequence[Publication]:
        return (self,)


class Compressed(Publication):
    """A publication whose frame is compressed, or is the plain one where that is not larger.

    It does not hold on to the plain one: what waits is in memory once.
    """

    __slots__ = ()

    def __init__(self, plain: Publication) -> None:
        self.channel = plain.channel
        self.sender = plain.sender
        self.compressed = None
        deflated = deflate(plain.payload)
        self.frame = plain.frame
        if deflated is not None:
            self.frame = _frame(plain.frame[0] | _COMPRESSED, deflated)

    def compress(self) -> Compressed:
        return self


class Joined:
    """Several publications, in their order, as the bytes that all their receivers get."""

    __slots__ = ("compressed", "frame", "parts")

    sender = None

    def __init__(self, parts: Sequence[Publication]) -> None:
        self.parts = parts
        self.frame = b"".join([each.frame for each in parts])
        self.compressed: Joined | None = None

    def compress(self) -> Joined:
        """The same messages for who takes them compressed; made once. A batch too large for that
        stays as it is: its parts one after the other would keep everybody waiting.
        """
        if len(self.frame) > _COMPRESSED_TOGETHER:
            return self
        if self.compressed is None:
            self.compressed = Joined([each.compress() for each in self.parts])
        return self.compressed


class RedisMessage(bytes):
    """A message: the bytes that travel. Made from ``bytes``, or from ``str`` as UTF-8."""

    def __new__(cls, message: bytes | bytearray | memoryview | str) -> RedisMessage:
        if isinstance(message, str):
            message = message.encode()
        elif not isinstance(message, bytes | bytearray | memoryview):
            raise TypeError(f"A message is str or bytes, not {type(message).__name__}.")
        return super().__new__(cls, message)


class PersistedMessage(RedisMessage):
    """A message read from the key of ``channel``: the last one published there."""

    channel: bytes

    def __new__(cls, payload: bytes, channel: bytes) -> PersistedMessage:
        message = bytes.__new__(cls, payload)
        message.channel = channel
        return message
