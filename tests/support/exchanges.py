"""HTTP requests with bodies, over a fake wire or a real one, and their answers."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.support import TIMEOUT
from tests.support.clients import exchange
from ws4redis_tx.protocols.centrifuge.wire import protobuf
from ws4redis_tx.protocols.centrifuge.wire.schema import COMMAND, EMULATION, REPLY
from ws4redis_tx.testing.wire import Wire


def request(
    target: str, body: bytes | None = b"", *, method: str = "POST", **headers: str | None
) -> bytes:
    """A request. Header names have ``_`` for ``-``; ``None`` omits a header."""
    fields: dict[str, str | None] = {"Host": "localhost"}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
    return head.encode("latin-1") + (body or b"")


class Exchange:
    """One request to a factory in memory, and the answer. ``pieces`` has each write after the head,
    ``body`` the content of a response in chunks.
    """

    def __init__(self, factory: Any, *sent: bytes) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.open = True
        self._head = b""
        self._wire = Wire(self._receive, self.lose)
        self._wire.protocol = protocol = factory.buildProtocol(self._wire.getPeer())
        protocol.makeConnection(self._wire)
        for each in sent:
            self.send(each)

    def send(self, data: bytes) -> None:
        self._wire.protocol.dataReceived(data)

    def lose(self) -> None:
        if self.open:
            self.open = False
            self._wire.protocol.connectionLost(Failure(ConnectionDone()))

    def pause(self) -> None:
        """The client reads no more."""
        self._wire.protocol.pauseProducing()

    def _receive(self, data: bytes) -> None:
        if self.status is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            self.status = int(first.split()[1])
            self.headers = {
                name.lower(): value for name, _, value in (x.partition(": ") for x in lines)
            }
        if data:
            self.pieces.append(data)

    @property
    def chunks(self) -> list[bytes]:
        """The chunks of the body. Each was written whole."""
        found = []
        for piece in self.pieces:
            while piece:
                size, _, rest = piece.partition(b"\r\n")
                number = int(size, 16)
                assert rest[number : number + 2] == b"\r\n", piece
                found.append(rest[:number])
                piece = rest[number + 2 :]
        return found

    @property
    def complete(self) -> bool:
        """Whether the body in chunks has come to its end."""
        return self.chunks[-1:] == [b""]

    @property
    def messages(self) -> list[Any]:
        """What the protocol's client reads."""
        content = b"".join(self.chunks)
        kind = self.headers["content-type"]
        if kind.startswith("application/octet-stream"):
            return list(_delimited(content))
        if kind.startswith("text/event-stream"):
            assert content.startswith(b"\r\n"), content
            events = content[2:].split(b"\n\n")
            assert events.pop() == b"", content
            return [json.loads(each.removeprefix(b"data: ")) for each in events]
        lines = content.split(b"\n")
        assert lines.pop() == b"", content
        return [json.loads(each) for each in lines]


def _delimited(content: bytes) -> Any:
    while content:
        start = next(index for index, byte in enumerate(content) if byte < 0x80) + 1
        size = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(content[:start]))
        yield protobuf.decode(content[start : start + size], REPLY)
        content = content[start + size :]


def commands(*values: dict[str, Any], binary: bool = False) -> bytes:
    if not binary:
        return "\n".join(json.dumps(each) for each in values).encode()
    written = [protobuf.encode(each, COMMAND) for each in values]
    return b"".join(protobuf.varint(len(each)) + each for each in written)


def emulated(stream: dict[str, str], data: bytes, *, binary: bool = False) -> bytes:
    """The body of a POST for a stream. ``stream`` is what the answer to ``connect`` said."""
    named = {"session": stream["session"], "node": stream["node"]}
    if binary:
        return protobuf.encode({**named, "data": data}, EMULATION)
    return json.dumps({**named, "data": data.decode()}).encode()


class LiveStream(Protocol):
    """A stream over a real connection."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.ended: Deferred[None] = Deferred()
        self._data = b""
        self._lines = b""
        self._messages: DeferredQueue[Any] = DeferredQueue()

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if self.status is None:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self.status, self._data = int(head.split()[1]), rest
        if self.status != 200:
            return
        while b"\r\n" in self._data:
            size, _, rest = self._data.partition(b"\r\n")
            number = int(size, 16)
            if len(rest) < number + 2:
                return
            self._data = rest[number + 2 :]
            *lines, self._lines = (self._lines + rest[:number]).split(b"\n")
            for line in lines:
                self._messages.put(json.loads(line))

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.ended.callback(None)

    def message(self) -> Deferred[Any]:
        """Fire with the next message that is no ping."""
        got: Deferred[Any] = self._messages.get().addTimeout(TIMEOUT, reactor)
        return got.addCallback(lambda message: message or self.message())


@inlineCallbacks
def open_stream(
    port: int, *first: dict[str, Any], path: str = "/connection/http_stream", **headers: str
) -> Any:
    """Fire with a stream that is connected, and with what its POSTs must say."""
    endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
    stream = yield connectProtocol(endpoint, LiveStream())
    body = commands({"id": 1, "connect": {}}, *first)
    stream.transport.write(request(path, body, Host=f"127.0.0.1:{port}", **headers))
    answer = yield stream.message()
    return stream, answer["connect"]


@inlineCallbacks
def post(port: int, body: bytes, path: str = "/emulation", **headers: Any) -> Any:
    """Fire with the status of the answer."""
    data = request(path, body, Host=f"127.0.0.1:{port}", **headers)
    answer = yield exchange(port, data)
    return int(answer.split()[1])
