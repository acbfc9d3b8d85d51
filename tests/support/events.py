"""A client of server-sent events over a real socket, which reads them as the standard says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone

from tests.support import TIMEOUT


@dataclass(frozen=True)
class Event:
    type: str
    data: str
    id: str


class EventSource(Protocol):
    """Takes the response apart. Ids without data count from the moment of their empty line."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._unread = b""
        self.head = ""
        self.status = 0
        self.answered: Deferred[EventSource] = Deferred()
        self.events: DeferredQueue[Event] = DeferredQueue()
        self.closed: Deferred[None] = Deferred()
        self.last_id = ""
        self.raw = b""
        self.retry: int | None = None
        self.comments = 0
        self._fields: list[tuple[str, str]] = []

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._unread += data
        if not self.head:
            head, end, rest = self._unread.partition(b"\r\n\r\n")
            if not end:
                return
            self.head, self._unread = head.decode("latin-1"), rest
            self.status = int(self.head.split()[1])
            self.answered.callback(self)
        self.raw += self._unread
        text = self._unread.decode()
        assert "\r" not in text  # it would end a line
        *lines, rest_of_line = text.split("\n")
        self._unread = rest_of_line.encode()
        for line in lines:
            self._take(line)

    def _take(self, line: str) -> None:
        if line:
            name, _, value = line.partition(":")
            self.comments += not name
            self._fields.append((name, value.removeprefix(" ")))
            return
        fields, self._fields = self._fields, []
        for name, value in fields:
            if name == "id":
                self.last_id = value
            elif name == "retry":
                self.retry = int(value)
        data = [value for name, value in fields if name == "data"]
        if data:
            types = [value for name, value in fields if name == "event"]
            type = types[-1] if types else "message"
            self.events.put(Event(type, "\n".join(data), self.last_id))

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.closed.callback(None)

    def next(self) -> Deferred[Event]:
        return self.events.get().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def take(self, count: int) -> Any:
        found = []
        for _ in range(count):
            found.append((yield self.next()))
        return found

    def leave(self) -> Deferred[None]:
        self.transport.loseConnection()
        return self.closed


@inlineCallbacks
def open_events(port: int, target: str, *, method: str = "GET", **headers: str | None) -> Any:
    """Fire with an ``EventSource`` whose response has begun."""
    fields: dict[str, str | None] = {
        "Host": f"127.0.0.1:{port}",
        "Accept": "text/event-stream",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
    source = yield connectProtocol(endpoint, EventSource(request))
    return (yield source.answered.addTimeout(TIMEOUT, reactor))
