"""Bounds on the bytes that a client sends: compressed messages, and messages in many pieces.

Autobahn bounds the bytes that come out of a compressed message, but not those that go in: bytes
after the end of a compressed stream yield nothing, count for nothing and are kept. It bounds the
size of a message, but not the number of its fragments or of a frame's pieces.
"""

from __future__ import annotations

import zlib
from typing import Any

from autobahn.exception import PayloadCorruptError, PayloadExceededError
from autobahn.twisted.websocket import WebSocketServerProtocol

# A message may have so many fragments, or as many of that many bytes as its size allows.
FEW_FRAGMENTS, SMALL_FRAGMENT = 1024, 64
# Pieces of a frame that are kept apart until it is complete.
MANY_PIECES = 256

_WINDOW_BITS = 15
# RFC 7692, section 7.2.1: ends each message, and is left out on the wire.
_TAIL = b"\x00\x00\xff\xff"
# Section 7.2.3.4: a stream may end before the message does; then this is between it and the tail.
_PADDING = b"\x00"


class Inflate:
    """A connection's inflater, which holds no memory between messages.

    ``most`` is how many bytes a message may have: inflated, and as it came. One that has more
    raises ``PayloadExceededError``, before more is inflated; one that is not deflated raises
    ``PayloadCorruptError``. After either, which ends the connection, it inflates nothing, so that
    what the client had sent already runs dry until its close frame.
    """

    EXTENSION_NAME = "permessage-deflate"

    def __init__(self, most: int) -> None:
        self._most = most
        self._zlib: Any = None
        self._came = 0
        self._inflated = 0
        self._failed = False

    def start_decompress_message(self) -> None:
        if not self._failed:
            self._zlib = zlib.decompressobj(-_WINDOW_BITS)
            self._came = self._inflated = 0

    def decompress_message_data(self, data: bytes, max_output_len: int | None = None) -> bytes:
        if self._failed:
            return b""
        self._came += len(data)
        inflated = self._inflate(data)
        self._inflated += len(inflated)
        if max(self._came, self._inflated) > self._most:
            raise self._failure(PayloadExceededError(f"a message exceeds {self._most} bytes"))
        if self._zlib.unused_data not in (b"", _PADDING):
            raise self._failure(PayloadCorruptError("something follows its last block"))
        return inflated

    def end_decompress_message(self) -> None:
        if self._failed:
            return
        rest = self._inflate(_TAIL)
        if rest or self._zlib.unused_data not in (b"", _PADDING + _TAIL):
            raise self._failure(PayloadCorruptError("it does not end where its last block does"))
        self._zlib = None

    def _inflate(self, data: bytes) -> bytes:
        try:
            # One more than allowed, to notice; zero would mean: without bounds.
            inflated: bytes = self._zlib.decompress(data, self._most - self._inflated + 1)
        except zlib.error as error:
            raise self._failure(PayloadCorruptError(str(error))) from error
        return inflated

    def _failure(self, error: Exception) -> Exception:
        self._failed = True
        self._zlib = None
        return error


class BoundedMessages(WebSocketServerProtocol):
    """Bounds the pieces that a message is kept in until it is complete."""

    message_data: Any
    frame_data: Any

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        # Empty fragments add nothing to the message's size, and each is kept.
        most = max(FEW_FRAGMENTS, self.factory.config.max_message_size // SMALL_FRAGMENT)
        if len(self.message_data) > most:
            self._max_message_size_exceeded(length, most, "The message has too many fragments.")

    def onMessageFrameData(self, payload: bytes) -> None:
        super().onMessageFrameData(payload)
        if self.frame_data is not None and len(self.frame_data) > MANY_PIECES:
            # Pieces as small as the network can make them would take many times their size.
            whole, *pieces = self.frame_data
            whole = whole if isinstance(whole, bytearray) else bytearray(whole)
            whole += b"".join(pieces)
            self.frame_data = [whole]
