"""A client of server-sent events at the other end of a fake wire."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from ws4redis_tx.service import WebSocketFactory
from ws4redis_tx.testing.wire import Event, EventReader, Wire


def listen(
    factory: WebSocketFactory,
    url: str,
    *,
    cookies: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> MemoryEvents:
    """A client that asks for the events of ``url`` (``http://localhost/ws/foobar?subscribe-user``),
    as an ``EventSource`` on a page of the same host does.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{url!r} is not the URL of events. Write http://localhost/ws/foobar.")
    fields = {
        "Host": parts.netloc,
        "Accept": "text/event-stream",
        "Sec-Fetch-Site": "same-origin",
        **(headers or {}),
    }
    if cookies:
        fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    target = quote(
        parts.path + (f"?{parts.query}" if parts.query else ""), safe="/?&=%+,;:@~!$'()*"
    )
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return MemoryEvents(factory, url, fields, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")


class MemoryEvents:
    """A client of server-sent events. ``status`` is that of the response; ``events`` has all that
    came, ``messages`` the data of those that are messages. ``position`` is the last id. ``open`` is
    true until the stream ends, and a browser comes back ``retry`` milliseconds later.
    """

    def __init__(
        self, factory: WebSocketFactory, url: str, headers: Mapping[str, str], request: bytes
    ) -> None:
        self.status: int | None = None
        self.events: list[Event] = []
        self.open = True
        self._factory = factory
        self._url = url
        self._headers = headers
        self._reader = EventReader(headers.get("Last-Event-ID", ""))
        self._received = b""
        self._wire = Wire(self._receive, self.lose_connection)
        self._wire.protocol = server = factory.buildProtocol(self._wire.getPeer())
        server.makeConnection(self._wire)
        server.dataReceived(request)

    @property
    def messages(self) -> list[str]:
        return [each.data for each in self.events if each.type == "message"]

    @property
    def position(self) -> str:
        return self._reader.last_id

    @property
    def retry(self) -> int | None:
        return self._reader.retry

    def lose_connection(self) -> None:
        if self.open:
            self.open = False
            self._wire.protocol.connectionLost(Failure(ConnectionDone()))

    def reconnect(self) -> MemoryEvents:
        """Lose the connection, and make another that resumes, as a browser does."""
        self.lose_connection()
        headers = {**self._headers}
        if self.position:
            headers["Last-Event-ID"] = self.position
        return listen(self._factory, self._url, headers=headers)

    def _receive(self, data: bytes) -> None:
        if self.status is None:
            self._received += data
            head, end, data = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            self.status = int(head.split()[1])
        if self.status == 200:
            self.events += self._reader.read(data)
