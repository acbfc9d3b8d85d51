"""A client of Centrifuge's protocol at the other end of a fake wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ws4redis_tx.core.errors import WS4RedisError
from ws4redis_tx.protocols.centrifuge.wire.schema import Values
from ws4redis_tx.service import WebSocketFactory
from ws4redis_tx.testing.client import MemoryClient, connect
from ws4redis_tx.testing.wire import CentrifugeFormat

_FOR_GOOD = 2500
"""A library subscribes again after the end of a subscription with this code, or a higher one."""


class CentrifugeError(WS4RedisError):
    """The server has answered a command with an error."""

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.temporary = temporary


@dataclass(frozen=True, slots=True)
class Push:
    """Anything that the server sent by itself.

    ``kind`` is ``pub``, ``join``, ``leave``, ``subscribe``, ``unsubscribe`` or ``message``.
    ``info`` says who published, came or went. ``recovered``: it came with the answer to
    ``subscribe``.
    """

    kind: str
    channel: str = ""
    data: Any = None
    offset: int = 0
    info: Mapping[str, Any] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    code: int = 0
    reason: str = ""
    recovered: bool = False


def connect_centrifuge(
    factory: WebSocketFactory,
    url: str = "ws://localhost/connection/websocket",
    *,
    token: str = "",
    protobuf: bool = False,
    cookies: Mapping[str, str] | None = None,
    origin: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> CentrifugeClient:
    """A client that connects to ``url`` and sends ``connect``, with a ``token`` if there is one.

    When this returns, the client is ``connected``, or has an ``error``, or ``refused`` is the HTTP
    status, unless the authorizer or the broker is still waiting. It speaks JSON, or ``protobuf``.
    The other arguments are those of ``connect``.
    """
    options = {"token": token, "protobuf": protobuf, "cookies": cookies, "origin": origin}
    return _connect({}, factory=factory, url=url, headers=headers, **options)


def _connect(subs: Values, **options: Any) -> CentrifugeClient:
    """Connect; ``subs`` are the positions on server-side subscriptions."""
    again, token = partial(_connect, **options), options.pop("token")
    binary = options.pop("protobuf")
    if binary:
        offer = {"Sec-WebSocket-Protocol": "centrifuge-protobuf"}
        options["headers"] = {**offer, **(options["headers"] or {})}
    websocket = connect(**options)
    client = CentrifugeClient(websocket, again, protobuf=binary)
    if websocket.open:
        client.send("connect", token=token, subs=subs)
    return client


class CentrifugeClient:
    """A client that has sent ``connect`` over ``websocket``, a ``MemoryClient``.

    Data are JSON values; over protobuf, bytes that are not JSON are bytes. It keeps the position of
    each subscription with a history, and answers pings, as the official libraries do.
    """

    answers_pings = True

    def __init__(self, websocket: MemoryClient, again: Any, *, protobuf: bool = False) -> None:
        self.websocket = websocket
        self.welcome: Mapping[str, Any] = {}
        """The answer to ``connect``."""
        self.error: CentrifugeError | None = None
        """The error with which ``connect`` was answered."""
        self.subscriptions: dict[str, Values] = {}
        """The answers to the subscriptions that have not ended, by their channels."""
        self.pushes: list[Push] = []
        self.answers: dict[int, Any] = {}
        """The answers by the numbers of their commands: each a result or a ``CentrifugeError``."""
        self.pings = 0
        """Number of pings that have come."""
        self._again = again
        self._format = CentrifugeFormat(binary=protobuf)
        self._number = 0
        # Its subscriptions that the server has begun.
        self._server_side: set[str] = set()
        # What was sent and not answered yet.
        self._sent: dict[int, tuple[str, Values]] = {}
        # The epoch and the offset up to which each subscription has everything.
        self._positions: dict[str, tuple[str, int]] = {}
        websocket.on_message = self._receive

    @property
    def id(self) -> str:
        """The id by which others know this client; ``""`` if it is not connected."""
        return str(self.welcome.get("client", ""))

    @property
    def connected(self) -> bool:
        return bool(self.welcome) and self.websocket.open

    @property
    def refused(self) -> int | None:
        """The HTTP status of a refusal."""
        return self.websocket.refused

    @property
    def close_code(self) -> int | None:
        """The code with which the server has disconnected the client."""
        return self.websocket.close_code

    @property
    def messages(self) -> list[Any]:
        """The data of all publications that have come, in their order."""
        return [each.data for each in self.pushes if each.kind == "pub"]

    # Commands

    def subscribe(self, channel: str, **request: Any) -> Mapping[str, Any]:
        """Subscribe, and return the answer. Publications that it brings are ``pushes``."""
        result: Mapping[str, Any] = self.ask("subscribe", channel=channel, **request)
        return result

    def unsubscribe(self, channel: str) -> None:
        self.ask("unsubscribe", channel=channel)

    def publish(self, channel: str, data: Any) -> None:
        """Publish a JSON value; or bytes, as they are."""
        self.ask("publish", channel=channel, data=data)

    def history(
        self,
        channel: str,
        limit: int = -1,
        *,
        since: tuple[str, int] | None = None,
        reverse: bool = False,
    ) -> Mapping[str, Any]:
        """Return ``publications``, ``epoch`` and ``offset``. ``since`` is an epoch and an
        offset.
        """
        request: Values = {"channel": channel, "limit": limit, "reverse": reverse}
        if since is not None:
            request["since"] = {"epoch": since[0], "offset": since[1]}
        result: Mapping[str, Any] = {"publications": [], **self.ask("history", **request)}
        return result

    def presence(self, channel: str) -> Mapping[str, Mapping[str, Any]]:
        """Return what is said of each client that is there, by its id."""
        result: Mapping[str, Any] = self.ask("presence", channel=channel).get("presence", {})
        return result

    def ask(self, name: str, **request: Any) -> Any:
        """Send a command, and return the result. Raises ``CentrifugeError`` for an error."""
        number = self.send(name, **request)
        if number not in self.answers:
            raise WS4RedisError(
                f"The server has not answered {name} yet, or has ended the connection. Use send(), "
                "and look into answers when it has."
            )
        answer = self.answers[number]
        if isinstance(answer, CentrifugeError):
            raise answer
        return answer

    def send(self, name: str, **request: Any) -> int:
        """Send a command, and return its number."""
        (number,) = self.send_all((name, request))
        return number

    def send_all(self, *commands: tuple[str, Values]) -> list[int]:
        """Send several commands in one frame, each a name and a request. Return their numbers."""
        numbers, written = [], list[Values]()
        for name, request in commands:
            self._number += 1
            self._sent[self._number] = name, request
            numbers.append(self._number)
            written.append({"id": self._number, name: request})
        self.websocket.send(self._format.write(written))
        return numbers

    def lose_connection(self) -> None:
        """Lose the connection without a close frame."""
        self.websocket.lose_connection()

    def reconnect(self) -> CentrifugeClient:
        """Lose the connection, and return a client that connects anew, and subscribes again from
        where this one was.
        """
        self.lose_connection()
        server_side = self._server_side
        recover: dict[str, Values] = {name: {} for name in self.subscriptions}
        for name, (epoch, offset) in self._positions.items():
            recover[name] = {"recover": True, "epoch": epoch, "offset": offset}
        subs = {name: each for name, each in recover.items() if name in server_side}
        client: CentrifugeClient = self._again(subs)
        for name, each in recover.items():
            if name not in server_side and client.websocket.open:
                client.send("subscribe", channel=name, **each)
        return client

    # The wire

    def _receive(self, frame: str | bytes) -> None:
        for reply in self._format.read(frame):
            if reply.get("id"):
                self._answered(reply["id"], reply)
            elif "push" in reply:
                self._pushed(reply["push"])
            else:
                self.pings += 1
                if self.answers_pings and self.websocket.answers_pings:
                    self.websocket.send(self._format.write([{}]))

    def _answered(self, number: int, reply: Values) -> None:
        name, request = self._sent.pop(number)
        if "error" in reply:
            self.answers[number] = error = CentrifugeError(**reply["error"])
            if name == "connect":
                self.error = error
            return
        result = self.answers[number] = reply.get(name, {})
        if name == "connect":
            self.welcome = result
            self._server_side.update(result.get("subs", ()))
            for channel, answer in result.get("subs", {}).items():
                self._subscribed(channel, answer)
        elif name == "subscribe":
            self._subscribed(request["channel"], result)
        elif name == "unsubscribe":
            self._ended(request["channel"])

    def _subscribed(self, channel: str, answer: Values) -> None:
        self.subscriptions[channel] = answer
        if "epoch" in answer:
            self._positions[channel] = answer["epoch"], answer.get("offset", 0)
        for publication in answer.get("publications", ()):
            self._take(channel, publication, recovered=True)

    def _pushed(self, push: Values) -> None:
        channel = push.get("channel", "")
        if "pub" in push:
            self._take(channel, push["pub"])
            return
        (kind,) = (each for each in push if each != "channel")
        values = push[kind]
        told = {name: values[name] for name in ("data", "info", "code", "reason") if name in values}
        self.pushes.append(Push(kind, channel, **told))
        if kind == "subscribe":
            self._server_side.add(channel)
            self._subscribed(channel, values)
        if kind == "unsubscribe" and values["code"] < _FOR_GOOD:
            self._ended(channel)

    def _take(self, channel: str, publication: Values, *, recovered: bool = False) -> None:
        names = ("data", "offset", "info", "tags")
        told = {name: publication[name] for name in names if name in publication}
        self.pushes.append(Push("pub", channel, recovered=recovered, **told))
        if channel in self._positions and publication.get("offset"):
            self._positions[channel] = self._positions[channel][0], publication["offset"]

    def _ended(self, channel: str) -> None:
        self.subscriptions.pop(channel, None)
        self._server_side.discard(channel)
        self._positions.pop(channel, None)
