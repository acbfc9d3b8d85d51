"""Bounds on a client's messages that Autobahn does not have.

Autobahn bounds the output of a compressed message, but not its input: bytes after the end of a
compressed stream yield no output and are kept without being counted. It bounds the size of a
message, but not the number of its fragments or of a frame's pieces. It takes all frames of a read
at once, ten thousand of them perhaps, while every other client waits.
"""

from __future__ import annotations

import zlib
from operator import attrgetter
from typing import Any

from autobahn.exception import PayloadCorruptError, PayloadExceededError
from autobahn.twisted.websocket import WebSocketServerProtocol

from ws4redis_tx.scheduling.immediate_writer import discard_unsent, unsent_pieces
from ws4redis_tx.sessions.session import Session

# A message may have this many fragments, or more if fragments of this size fit into its limit.
FEW_FRAGMENTS, SMALL_FRAGMENT = 1024, 64
# Pieces of a frame that are kept apart until it is complete.
MANY_PIECES = 256
# A frame of this size is collected in one piece of memory, which returns to the system in the end.
LARGE_FRAME = 1 << 17
# Bytes of memory that each piece takes in addition to those of the message.
PIECE_COST = 64

# So many bytes are taken without waiting for a turn: a ping or a short message, but never enough
# of them to keep others waiting.
_QUICKLY_TAKEN = 128

_SHORT_FRAME = 4096
"""Bytes of a frame that is taken without waiting for a turn, too, if nothing comes behind it."""

_WINDOW_BITS = 15
# Each message ends with this, which is left out on the wire (RFC 7692, section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"
# If a stream ends before its message does, this comes between it and the tail (section 7.2.3.4).
_PADDING = b"\x00"


def longest_deflated(length: int) -> int:
    """At least as many bytes as a deflater makes of ``length``. Random data grows: zlib's own bound
    (``deflateBound``) is a seventh more, to which a client's flushes add.
    """
    return length + length // 4 + 64


class Inflate:
    """A connection's inflater, which holds no memory between messages.

    ``most`` bounds the bytes of an inflated message, and `longest_deflated` those received for it.
    A larger message raises ``PayloadExceededError`` before more is inflated. One that is not valid
    deflate raises ``PayloadCorruptError``. Either ends the connection. From then on nothing is
    inflated, and the rest of the client's data is discarded until its close frame.
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
        if self._inflated > self._most or self._came > longest_deflated(self._most):
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
            # One byte more than allowed, to detect the excess. Zero would mean no bound.
            inflated: bytes = self._zlib.decompress(data, self._most - self._inflated + 1)
        except zlib.error as error:
            raise self._failure(PayloadCorruptError(str(error))) from error
        return inflated

    def _failure(self, error: Exception) -> Exception:
        self._failed = True
        self._zlib = None
        return error


class BoundedMessages(WebSocketServerProtocol):
    """Bounds the number of pieces in which an incomplete message is kept, and knows what is kept
    for the connection.
    """

    session: Session
    message_data: Any
    frame_data: Any
    frame_length: int
    inside_message = False

    _kept = 0
    _told = 0
    _taking = False
    """Whether Autobahn reads in ``data`` just now. The connection may be lost meanwhile."""

    @property
    def incoming(self) -> int:
        """As ``ITransport.incoming``."""
        return len(self.data) + (self._kept if self.inside_message else 0)

    def tell_growth(self) -> None:
        """Tell the session how many bytes more wait since the last time, or the last message."""
        before, self._told = self._told, self.incoming
        if self._told > before:
            self.session.grew(self._told - before)

    @property
    def outgoing(self) -> list[bytes]:
        """As ``ITransport.outgoing``."""
        return unsent_pieces(self.transport)

    # As ``ITransport.connection``. Asked for at each handshake.
    connection = property(attrgetter("transport"))

    def forget_message(self) -> None:
        """Free an incomplete message, whose rest will be ignored."""
        if self.inside_message:
            self.message_data, self.frame_data = [], []
            self._kept = 0

    def _connectionLost(self, reason: Any) -> None:
        super()._connectionLost(reason)
        self.forget_message()
        if not self._taking:
            self.data = b""
        discard_unsent(self.transport)

    def onMessageBegin(self, isBinary: bool) -> None:
        self._kept = self._told = 0
        super().onMessageBegin(isBinary)
        if self._perMessageCompress is not None:
            most = self.factory.config.max_message_size
            # Autobahn counts bytes before they are inflated. `Inflate` holds the message to `most`.
            most = longest_deflated(most) if self._isMessageCompressed else most
            self.maxMessagePayloadSize = self.maxFramePayloadSize = most

    def onMessageEnd(self) -> None:
        self._told = 0
        super().onMessageEnd()

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        # Empty fragments add nothing to the message's size, but each is kept.
        most = max(FEW_FRAGMENTS, self.factory.config.max_message_size // SMALL_FRAGMENT)
        if len(self.message_data) > most:
            self._max_message_size_exceeded(length, most, "The message has too many fragments.")

    def onMessageFrameData(self, payload: bytes) -> None:
        if self.state != self.STATE_OPEN:
            return  # nobody wants it: one side has begun to close
        super().onMessageFrameData(payload)
        self._kept += len(payload) + PIECE_COST
        most = 1 if self.frame_length >= LARGE_FRAME else MANY_PIECES
        if self.frame_data is not None and len(self.frame_data) > most:
            # Tiny pieces would take many times their size in memory.
            whole, *pieces = self.frame_data
            whole = whole if isinstance(whole, bytearray) else bytearray(whole)
            whole += b"".join(pieces)
            self.frame_data = [whole]


class TurnTaking(BoundedMessages):
    """Takes a client's bytes in turns with all other clients of the server.

    While some of them wait for a turn, or for the session to read on, no more are read from the
    client.
    """

    transport: Any
    state: int

    # Whether bytes are here that can be taken. Only some of them may be of a whole frame.
    _behind = False
    _reads = True
    """Whether the client is read from."""

    def consumeData(self) -> None:
        if self.state not in (self.STATE_OPEN, self.STATE_CLOSING):
            super().consumeData()
        elif not self._behind:
            self._behind = True
            if len(self.data) <= _QUICKLY_TAKEN or _is_short_frame(self.data):
                while self.take_step():
                    pass
            else:
                self._take_turns()

    def take_step(self) -> bool:
        """Take a frame's head, or what there is of its payload. Return whether to go on."""
        if not self.session.reading:
            return False  # until `resume_reading`
        self._taking = True
        try:
            if self.state != self.STATE_CLOSED and self.processData():
                return True
        except BaseException:
            self.transport.abortConnection()
            raise
        finally:
            self._taking = False
        self._behind = False
        if self.state == self.STATE_CLOSED:
            self.data = b""
            return False
        if self.inside_message or self.data:
            self.tell_growth()
        self._pace()
        return False

    def _take_turns(self) -> None:
        self.session.server.turns.join(self.session)
        self._pace()

    def pause_reading(self) -> None:
        self._pace()

    def resume_reading(self) -> None:
        if self._behind and not self._taking:
            self._take_turns()
        self._pace()

    def _pace(self) -> None:
        reads = self.session.reading and not self._behind
        if reads is not self._reads and self.state != self.STATE_CLOSED:
            self._reads = reads
            if reads:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()


def _is_short_frame(data: bytes) -> bool:
    """Whether this is one whole frame of a client's, and no more."""
    size = len(data)
    if size > _SHORT_FRAME:
        return False
    length, head = data[1] & 127, 6  # with the mask
    if length == 126:
        length, head = int.from_bytes(data[2:4], "big"), 8
    return size == head + length
