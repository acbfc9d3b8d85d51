"""How the messages of the protocol lie in a response without end.

The response is chunked, and each message is a chunk of its own, for one write.
"""

from __future__ import annotations

from ws4redis_tx.delivery.codecs import Codec

END = b"0\r\n\r\n"
"""Ends the response."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Framing(Codec):
    """An ``IFraming``. Messages in JSON are lines, and those in protobuf follow each other: each
    begins with its length.
    """

    __slots__ = ()

    content_type = "text/plain; charset=utf-8"
    first = b""
    """Comes before all messages."""

    def frame(self, payload: bytes, binary: bool) -> bytes:
        return chunk(payload if binary else payload + b"\n")


class EventFraming(Framing):
    """Each message in JSON is an event."""

    __slots__ = ()

    content_type = "text/event-stream; charset=utf-8"
    first = chunk(b"\r\n")

    def frame(self, payload: bytes, binary: bool) -> bytes:
        # In JSON a CR is a blank, and in an event the end of a line.
        lines = payload.replace(b"\r", b"").split(b"\n")
        return chunk(b"".join([b"data: %b\n\n" % line for line in lines]))


class BinaryFraming(Framing):
    """For a client whose messages are in protobuf."""

    __slots__ = ()

    content_type = "application/octet-stream"


LINES, EVENTS, BINARY = Framing(), EventFraming(), BinaryFraming()
