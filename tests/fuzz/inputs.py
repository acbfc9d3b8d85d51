"""Targets that take one string of bytes from a fuzzer, and the fuzzer's first inputs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz import targets
from tests.fuzz.conversations import STEPS, conversation
from tests.support.wires import handshake_bytes
from ws4redis_tx.testing import client_frame

# Separates the replies at one place from those at the next.
SEPARATOR = b"\xfe\xfe"


@dataclass(frozen=True, slots=True)
class Target:
    """``seeds`` are inputs that reach far into the code; the fuzzer makes others from ``words``."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]


def pieces(data: bytes) -> list[bytes]:
    """The first byte is the size of the pieces in which the rest arrives; 0 means one piece."""
    size, rest = data[0] if data else 0, data[1:]
    if not size:
        return [rest]
    return [rest[start : start + size] for start in range(0, len(rest), size)]


def said(data: bytes) -> list[tuple[str, bytes]]:
    """The first byte of each part names the place where Redis sends the rest."""
    parts = [part for part in data.split(SEPARATOR) if part]
    return [(targets.PLACES[part[0] % len(targets.PLACES)], part[1:]) for part in parts[:8]]


def steps(data: bytes) -> list[tuple[str, int]]:
    """Three bytes for each fault: which one, and how much."""
    whole = data[: len(data) // 3 * 3][:75]
    return [
        (targets.FAULTS[fault % len(targets.FAULTS)], amount)
        for fault, amount in struct.iter_unpack(">Bh", whole)
    ]


def centrifuge(data: bytes) -> None:
    """The first bit tells whether the rest is in protobuf. The rest is sent to a client, too."""
    targets.centrifuge_commands(bool(data[:1] and data[0] & 1), data[1:])
    targets.centrifuge_push(data[1:])


_BULK = (b"$1\r\nc\r\n", b"$7\r\nmessage\r\n", b"$9\r\nsubscribe\r\n", b"$4\r\npong\r\n")
_RESP = (
    *_BULK,
    b"*3\r\n",
    b":1\r\n",
    b"$-1\r\n",
    b"+PONG\r\n",
    b"-NOPERM no\r\n",
    b"-BUSY no\r\n",
    b"-ERR unknown command\r\n",
    b"PROBE",
    b"%1\r\n",
    b"#f\r\n",
)
_MESSAGE = b"*3\r\n$7\r\nmessage\r\n$11\r\nbroadcast:f\r\n$2\r\nhi\r\n"
# A fault and its end; the clock set back, and both connections lost.
_FAULTS = (*(((index, 20), (index, 20)) for index in range(4)), ((4, -3600), (6, 0), (5, 20)))

TARGETS = {
    "handshakes": Target(
        lambda data: targets.handshakes(pieces(data)),
        (
            b"\0" + handshake_bytes(),
            b"\7" + handshake_bytes("/ws/a%20b?subscribe-user&echo", Cookie="sessionid=JOHN"),
            b"\0" + handshake_bytes(Origin="http://localhost", Sec_WebSocket_Protocol="a, b"),
        ),
        (
            b"\r\n", b": ", b"GET ", b" HTTP/1.1", b"/ws/", b"Cookie", b"sessionid=", b"JOHN",
            b"Origin", b"Host", b"localhost", b".example.com", b"http://", b"Upgrade",
            b"Connection",
            b"Sec-WebSocket-Version", b"Sec-WebSocket-Key", b"Content-Length", b"subscribe-session",
            b"subscribe-group", b"publish-broadcast", b"%00", b"%ff", b"\x0b", b"\x1c", b"\x85",
        ),
    ),
    "frames": Target(
        lambda data: targets.frames(pieces(data)),
        (
            b"\0" + client_frame(1, b"hi") + client_frame(8, b"\x03\xe8"),
            b"\1" + client_frame(9, b"ping") + b"\x01\x81\0\0\0\0a\x80\x81\0\0\0\0b",
        ),
        (b"\x81\x80\0\0\0\0", b"\x88\x82\0\0\0\0\x03\xe8", b"\x01\xfe", b"\x82\xff", b"\xc3\xa9"),
    ),
    "centrifuge": Target(
        centrifuge,
        (
            b'\0{"id":1,"connect":{"token":"t","subs":{"a":{"offset":1}}}}\n{"id":2,"subscribe":'
            b'{"channel":"broadcast:f","recover":true,"epoch":"e","data":{"a":[1e400]}}}\n{}',
            b'\0{"id":3,"history":{"channel":"c","limit":-1,"since":{"offset":1,"epoch":"e"}}}',
            b"\1\x0e\x08\x01\x22\x0a\x0a\x01t\x1a\x05\x0a\x01a\x12\x00\x00",
        ),
        (
            b'{"id":', b'"connect":{', b'"subscribe":{', b'"data":', b'"channel":', b'"subs":{',
            b'"headers":{', b'"offset":', b'"limit":-', b"\n", b"\r", b"null", b"true", b"\\ud800",
            b"18446744073709551616", b"[[[[", b"\x22", b"\x2a", b"\x0a", b"\xff\xff\xff\x7f",
        ),
    ),
    "conversations": Target(
        conversation,
        (
            b"\0" + bytes(each for step in range(len(STEPS)) for each in (step, 1)),
            b"\7" + bytes(each for step in range(len(STEPS)) for each in (step, 17)),
            b"\x1e" + bytes(each for step in range(len(STEPS)) for each in (step, 66)),
        ),
        tuple(bytes([step]) for step in range(len(STEPS))),
    ),
    "pubsub": Target(
        lambda data: targets.pubsub_replies(pieces(data)),
        (
            b"\0*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n",
            b"\5" + _MESSAGE,
        ),
        _RESP,
    ),
    "commands": Target(
        lambda data: targets.command_replies(pieces(data)), (b"\0$1\r\nc\r\n+OK\r\n:1\r\n",), _RESP
    ),
    "broker": Target(
        lambda data: targets.broker(said(data)),
        (b"\0" + _MESSAGE + SEPARATOR + b"\2:1\r\n" + SEPARATOR + b"\2*2\r\n$-1\r\n$-1\r\n",),
        (*_RESP, SEPARATOR, SEPARATOR + b"\0", SEPARATOR + b"\1", SEPARATOR + b"\2"),
    ),
    "faults": Target(
        lambda data: targets.faults(steps(data)),
        tuple(b"".join(struct.pack(">Bh", *each) for each in pairs) for pairs in _FAULTS),
        tuple(struct.pack(">Bh", index, -3600) for index in range(len(targets.FAULTS))),
    ),
}  # fmt: skip
