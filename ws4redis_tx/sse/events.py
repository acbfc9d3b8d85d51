"""The format of server-sent events, and the codec that writes it.

A line of the format ends at CR LF, LF or CR. A message whose bytes it could not carry is sent as
base64, in an event of the type ``binary``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection

from ws4redis_tx.core.messages import Notice, Publication
from ws4redis_tx.core.positions import Position, status
from ws4redis_tx.delivery.codecs import Codec

COMMENT = b":\n\n"


def event(data: bytes, *, type: str = "", id: str = "") -> bytes:
    """One event. ``data`` has no CR.

    The id comes last: some clients take it at once, and would lose the event if they were cut off
    behind that line.
    """
    lines = [b"event: " + type.encode()] if type else []
    lines += [b"data: " + line for line in data.split(b"\n")]
    if id:
        lines.append(b"id: " + id.encode())
    return b"\n".join(lines) + b"\n\n"


class EventCodec(Codec):
    """Writes each message as an event, and its position as the event's id.

    A message whose own position is not known has no id: a client that comes back would otherwise
    miss what lies between.
    """

    __slots__ = ()

    def encode(self, publication: Publication, /) -> bytes:
        position = publication.position
        if position is None:
            return b""  # a heartbeat: comments take its place
        id = str(position) if publication.marked else ""
        payload = publication.payload
        if b"\r" in payload or not _is_text(payload):
            return event(base64.b64encode(payload), type="binary", id=id)
        return event(payload, id=id)

    def notify(self, notice: Notice) -> bytes:
        """The position alone, behind a comment that keeps proxies from giving up; or a gap."""
        if notice.gap:
            told = status(notice.position, False, notice.gap)
            return event(told, type="gap", id=str(notice.position))
        return b":\nid: %b\n\n" % str(notice.position).encode()

    def opening(self, position: Position, recovered: bool | None, gaps: Collection[bytes]) -> bytes:
        """The first event, ``open``, and a ``gap`` if there is one."""
        told = status(position, recovered, gaps)
        # The position stands before any event. It is one that the client has already, or its first.
        first = b"id: %b\n" % str(position).encode() + event(told, type="open")
        return first + event(told, type="gap") if gaps else first

    def live(self, position: Position) -> bytes:
        """Ends the replay. Its position is that of everything before it."""
        return event(
            json.dumps({"position": str(position)}).encode(), type="live", id=str(position)
        )


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


EVENTS = EventCodec()
