"""Bytes as clients and Redis send them, and a wire that keeps the bytes a server writes."""

from __future__ import annotations

import json
import random
import zlib

from ws4redis_tx.testing import client_frame


class Written(list[bytes]):
    """A writer that keeps the bytes, piece by piece."""

    def write(self, data: bytes) -> None:
        self.append(data)


def handshake_bytes(target: str = "/ws/foobar?subscribe-broadcast", **headers: str | None) -> bytes:
    """A well-formed handshake. Header names have ``_`` for ``-``; ``None`` omits a header."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def from_redis(*messages: tuple[bytes, bytes]) -> bytes:
    """Published messages, each a channel and a payload, as Redis sends them."""
    return b"".join(
        b"*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n"
        % (len(channel), channel, len(payload), payload)
        for channel, payload in messages
    )


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


# Bits of a frame's first byte, besides FIN.
TEXT, BINARY, COMPRESSED = 1, 2, 0x40


def deflate(payload: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """Deflate as clients do: leave out the last four bytes, or end the stream and pad it."""
    compressor = zlib.compressobj(wbits=-15)
    deflated = compressor.compress(payload) + compressor.flush(flush)
    return deflated[:-4] if flush == zlib.Z_SYNC_FLUSH else deflated + b"\x00"


def unfinished(opcode: int, payload: bytes) -> bytes:
    """A frame that does not end its message."""
    frame = client_frame(opcode, payload)
    return bytes((frame[0] & 0x7F,)) + frame[1:]


def rows(size: int, seed: int = 0) -> bytes:
    """``size`` bytes of JSON, perhaps cut off, like the messages of applications."""
    chance = random.Random(seed)
    row = [{"id": chance.randrange(10**6), "name": "a client", "at": chance.random()}]
    return (json.dumps(row).encode() * (size // 40))[:size]
