"""A fake wire, and the formats on it as a client sees them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport

from ws4redis_tx.protocols.centrifuge.wire import json as json_format
from ws4redis_tx.protocols.centrifuge.wire import protobuf
from ws4redis_tx.protocols.centrifuge.wire.schema import COMMAND, REPLY, Values

SUBPROTOCOL = "ws4redis.resume"


class Wire(StringTransport):
    """The server's end of the wire. The client reads each write at once, and sees each close."""

    protocol: Any = None

    def __init__(self, receive: Callable[[bytes], object], lose: Callable[[], object]) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self._receive = receive
        self._lose = lose

    def write(self, data: bytes) -> None:
        self._receive(data)

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        self._lose()

    def abortConnection(self) -> None:
        self._lose()


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A whole, final, masked frame (with a mask of zeros) as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


class Frame(NamedTuple):
    """A frame of the subprotocol. ``message`` is ``None`` in a mark; ``status`` is the JSON of the
    first frame, or of a later gap.
    """

    position: str
    message: bytes | None = None
    replayed: bool = False
    status: dict[str, Any] | None = None


def read_frame(payload: bytes) -> Frame:
    if payload.startswith(b"{"):
        status = json.loads(payload)
        return Frame(status["position"], status=status)
    head, line_feed, message = payload.partition(b"\n")
    position, comma, _ = head.decode().partition(",")
    return Frame(position, message if line_feed else None, bool(comma))


class Event(NamedTuple):
    """A server-sent event as a browser would dispatch it."""

    type: str
    data: str
    id: str


class EventReader:
    """Reads events as the standard says, except that no line may end at a CR: the server writes
    none.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry: int | None = None
        self._unread = b""
        self._fields: list[tuple[str, str]] = []

    def read(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        events: list[Event] = []
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if line:
                name, _, value = line.decode().partition(":")
                self._fields.append((name, value.removeprefix(" ")))
            else:
                events += self._dispatch()
        return events

    def _dispatch(self) -> list[Event]:
        fields, self._fields = self._fields, []
        data: list[str] = []
        type = "message"
        for name, value in fields:
            if name == "id":
                self.last_id = value
            elif name == "retry":
                self.retry = int(value)
            elif name == "event":
                type = value
            elif name == "data":
                data.append(value)
        return [Event(type, "\n".join(data), self.last_id)] if data else []


class CentrifugeFormat:
    """The messages of Centrifuge's protocol, with JSON values in place of raw ones."""

    _raw = frozenset({"data", "conn_info", "chan_info"})

    def __init__(self, *, binary: bool) -> None:
        self._binary = binary

    def write(self, commands: Iterable[Values]) -> str | bytes:
        """A frame."""
        raw = [self._uncooked(each) for each in commands]
        if not self._binary:
            return b"\n".join([json_format.encode(each, COMMAND) for each in raw]).decode()
        messages = [protobuf.encode(each, COMMAND) for each in raw]
        return b"".join([protobuf.varint(len(each)) + each for each in messages])

    def read(self, frame: str | bytes) -> Iterator[Values]:
        """The replies in a frame."""
        if isinstance(frame, str):
            yield from map(json.loads, frame.split("\n"))
            return
        index = 0
        while index < len(frame):
            size = shift = 0
            while True:
                digit = frame[index]
                size |= (digit & 0x7F) << shift
                index, shift = index + 1, shift + 7
                if digit < 0x80:
                    break
            yield self._cooked(protobuf.decode(frame, REPLY, index, index + size))
            index += size

    def _uncooked(self, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            name: json.dumps(each).encode()
            if name in self._raw and not isinstance(each, bytes)
            else self._uncooked(each)
            for name, each in values.items()
        }

    def _cooked(self, values: Any) -> Any:
        if isinstance(values, list):
            return [self._cooked(each) for each in values]
        if not isinstance(values, dict):
            return values
        return {
            name: _value(each) if name in self._raw else self._cooked(each)
            for name, each in values.items()
        }


def _value(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data
