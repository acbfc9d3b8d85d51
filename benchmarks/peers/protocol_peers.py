"""What servers have in common whose clients speak a protocol on top of the websocket."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import Any

from benchmarks.load import Dialect, Failed, Load
from benchmarks.servers import Server


class ProtocolPeer(Server):
    """A server whose clients speak ``dialect`` and subscribe with frames of their own.

    They send all of these as soon as the handshake is answered. Most libraries wait for one answer
    before the next request, so this is a little in favour of the server.
    """

    dialect: Dialect
    headers: Sequence[str] = ()
    """The header lines that its clients add to their handshake."""
    _clients = 0

    def subscribing(self, client: int) -> bytes:
        """Return the frames with which a client subscribes. Each client has another number."""
        raise NotImplementedError

    def open(self, load: Load, targets: Sequence[str], number: int, **how: Any) -> None:
        first, self._clients = self._clients, self._clients + number
        said = [self.subscribing(client) for client in range(first, self._clients)]
        how["headers"] = [*how.get("headers", ()), *self.headers]
        super().open(load, targets, number, dialect=self.dialect, said=said, **how)


class JsonApi:
    """Posts JSON to one path of a server, over one connection."""

    def __init__(self, port: int, path: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._path = path
        self._headers = {"Content-Type": "application/json", **headers}

    def post(self, content: object) -> None:
        """Raise ``Failed`` if the server does not answer with 200, or answers with an error."""
        try:
            answer = self._ask(json.dumps(content))
        except ConnectionError:  # the server has closed a connection that was idle for long
            self._connection.close()
            answer = self._ask(json.dumps(content))
        said = answer.read()
        if answer.status != 200 or b'"error"' in said:
            raise Failed(f"{self._path} answered {answer.status}: {said.decode()}")

    def _ask(self, body: str) -> http.client.HTTPResponse:
        self._connection.request("POST", self._path, body, self._headers)
        return self._connection.getresponse()

    def end(self) -> None:
        self._connection.close()
