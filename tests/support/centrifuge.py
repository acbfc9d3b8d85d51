"""A client of Centrifuge's protocol, in JSON over a websocket."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from tests.support.clients import Client, open_websocket


class CentrifugeClient:
    """Sends commands, and keeps the pushes that come between the answers."""

    def __init__(self, websocket: Client) -> None:
        self.websocket = websocket
        self.id = ""
        self.welcome: Any = None
        self.pushes: deque[Any] = deque()
        self._number = 0
        self._messages: deque[Any] = deque()

    @property
    def closed(self) -> Deferred[Any]:
        return self.websocket.closed

    def send(self, *commands: dict[str, Any]) -> None:
        """Send commands in one frame, each with a number."""
        lines = []
        for command in commands:
            self._number += 1
            lines.append(json.dumps({"id": self._number, **command}))
        self.websocket.sendMessage("\n".join(lines).encode())

    @inlineCallbacks
    def message(self) -> Any:
        """Fire with the next message of any kind."""
        while not self._messages:
            frame = yield self.websocket.next()
            self._messages += map(json.loads, frame.split("\n"))
        return self._messages.popleft()

    @inlineCallbacks
    def answer(self) -> Any:
        """Fire with the next answer. Pushes before it are kept."""
        while "push" in (message := (yield self.message())) or not message:
            if message:
                self.pushes.append(message["push"])
        return message

    @inlineCallbacks
    def push(self) -> Any:
        """Fire with the next push."""
        if self.pushes:
            return self.pushes.popleft()
        message = yield self.message()
        return message["push"]

    @inlineCallbacks
    def ask(self, name: str, **request: Any) -> Any:
        """Fire with the result of a command, or with the code of its error."""
        self.send({name: request})
        answer = yield self.answer()
        return answer["error"]["code"] if "error" in answer else answer[name]

    def subscribe(self, channel: str, **request: Any) -> Any:
        return self.ask("subscribe", channel=channel, **request)

    @inlineCallbacks
    def data(self) -> Any:
        """Fire with what the next publication carries."""
        push = yield self.push()
        return push["pub"]["data"]


@inlineCallbacks
def open_centrifuge(
    port: int, *, query: str = "", connect: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Fire with a client that is connected, and its ``welcome``."""
    url = f"ws://127.0.0.1:{port}/connection/websocket{query}"
    client = CentrifugeClient((yield open_websocket(url, **options)))
    client.welcome = yield client.ask("connect", **(connect or {}))
    if isinstance(client.welcome, dict):
        client.id = client.welcome["client"]
    return client
