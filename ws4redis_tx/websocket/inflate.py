"""Inflates what a client compressed, within bounds. Autobahn calls it, piece by piece.

Autobahn's own bounds what comes out, but not what goes in: what follows the end of a compressed
stream yields nothing, counts for nothing and is kept.
"""

from __future__ import annotations

import zlib
from typing import Any

from autobahn.exception import PayloadCorruptError, PayloadExceededError

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
