"""The records of clients that keep their position, over websockets and server-sent events."""

from __future__ import annotations

import json
from typing import Any

from ws4redis_tx.core.positions import read_position
from ws4redis_tx.testing import MemoryClient, MemoryEvents


class Seen:
    """All that a client has seen, over either transport: messages, gaps, positions, in order.

    Each is ``(kind, text, position)``; the kinds are ``open``, ``message``, ``replayed``, ``gap``,
    ``mark`` and ``live``.
    """

    client: Any

    def __iter__(self) -> Any:
        raise NotImplementedError

    def kinds(self, *kinds: str) -> list[str]:
        return [text for kind, text, _ in self if kind in kinds]

    @property
    def messages(self) -> list[str]:
        return self.kinds("message", "replayed")

    @property
    def gaps(self) -> list[str]:
        return self.kinds("gap")

    @property
    def position(self) -> Any:
        return read_position(self.client.position)


class OverWebSocket(Seen):
    def __init__(self, client: MemoryClient) -> None:
        self.client = client

    def __iter__(self) -> Any:
        first = True
        for frame in self.client.frames:
            position = read_position(frame.position)
            if frame.status is not None:
                if first:
                    yield "open", "", position
                for audience in frame.status["gap"]:
                    yield "gap", audience, position
            elif frame.message is None:
                yield "mark", "", position
            else:
                kind = "replayed" if frame.replayed else "message"
                yield kind, frame.message.decode(), position
            first = False

    def reconnect(self) -> OverWebSocket:
        return OverWebSocket(self.client.reconnect())

    def pause(self) -> None:
        self.client._server.pauseProducing()

    def read_on(self) -> None:
        self.client._server.resumeProducing()


class OverEvents(Seen):
    def __init__(self, client: MemoryEvents) -> None:
        self.client = client
        self._marks: list[tuple[int, Any]] = []  # after how many events, and the position
        receive = client._wire._receive
        client._wire._receive = lambda data: self._receive(data, receive)

    def _receive(self, data: bytes, receive: Any) -> None:
        before = self.client.position
        receive(data)
        if self.client.position != before and b"data:" not in data:
            self._marks.append((len(self.client.events), self.position))

    def __iter__(self) -> Any:
        marks = [*self._marks]
        for number, event in enumerate([*self.client.events, None]):
            while marks and marks[0][0] == number:
                yield "mark", "", marks.pop(0)[1]
            if event is None:
                continue
            position = read_position(event.id)
            if event.type == "gap":
                for audience in json.loads(event.data)["gap"]:
                    yield "gap", audience, position
            else:
                yield event.type, event.data if event.type == "message" else "", position

    def reconnect(self) -> OverEvents:
        return OverEvents(self.client.reconnect())

    def pause(self) -> None:
        if self.client._wire.producer is not None:  # else it was not answered yet
            self.client._wire.producer.pauseProducing()

    def read_on(self) -> None:
        if self.client._wire.producer is not None:
            self.client._wire.producer.resumeProducing()
