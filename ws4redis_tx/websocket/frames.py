"""Websocket frames that the server sends (RFC 6455, section 5.2), and the codecs that make them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ws4redis_tx.core.messages import Publication
from ws4redis_tx.delivery.codecs import Codec
from ws4redis_tx.websocket.compression import deflate

_TEXT, _BINARY = 0x81, 0x82
# Set in the first byte of a frame whose payload is compressed.
_COMPRESSED = 0x40
_SMALL, _MEDIUM, _LARGE = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
# Bytes that are compressed in one go. More would take longer than a few milliseconds.
_MAX_COMPRESSED_TOGETHER = 1 << 14

PING = b"\x89\x00"


def server_frame(payload: bytes) -> bytes:
    """The unmasked, unfragmented frame for ``payload``. It is text if ``payload`` is valid UTF-8,
    and binary otherwise, because Redis carries bytes without a type.
    """
    return _frame(_opcode(payload), payload)


def _opcode(payload: bytes) -> int:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return _BINARY
    return _TEXT


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return _SMALL.pack(first, size) + payload
    if size < 65536:
        return _MEDIUM.pack(first, 126, size) + payload
    return _LARGE.pack(first, 127, size) + payload


def pong_frame(payload: bytes) -> bytes:
    """The frame that answers a ping with ``payload``, which has at most 125 bytes."""
    return b"\x8a" + bytes((len(payload),)) + payload


class PlainFrames(Codec):
    """Each message as one frame."""

    __slots__ = ()

    def frame(self, payload: bytes, binary: bool) -> bytes:
        return _frame(_BINARY if binary else _TEXT, payload)

    def encode(self, publication: Publication, /) -> bytes:
        payload = publication.payload
        first = _TEXT if payload.isascii() else _opcode(payload)
        size = len(payload)
        # Most messages are small, and this runs for each of them.
        return _SMALL.pack(first, size) + payload if size < 126 else _frame(first, payload)


class DeflatedFrames(Codec):
    """Each message as one compressed frame, or as a plain frame if that is not larger."""

    __slots__ = ()

    def frame(self, payload: bytes, binary: bool) -> bytes:
        deflated = deflate(payload)
        if deflated is None:
            return PLAIN.frame(payload, binary)
        return _frame((_BINARY if binary else _TEXT) | _COMPRESSED, deflated)

    def encode(self, publication: Publication, /) -> bytes:
        deflated = deflate(publication.payload)
        if deflated is None:
            return publication.forms.get(PLAIN) or publication.form(PLAIN)
        return _frame(_opcode(publication.payload) | _COMPRESSED, deflated)

    def join(self, publications: Sequence[Publication], /) -> bytes:
        """Messages that are too large together stay uncompressed: compressing one after the other
        would make every other client wait.
        """
        large = sum([each.size for each in publications]) > _MAX_COMPRESSED_TOGETHER
        return PLAIN.join(publications) if large else super().join(publications)


PLAIN = PlainFrames()
DEFLATED = DeflatedFrames()
