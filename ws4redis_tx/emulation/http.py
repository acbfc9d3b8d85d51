"""The paths under which the protocol is served over HTTP, and the requests for them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_plus

from twisted.internet.defer import Deferred

from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.http import HttpRequest
from ws4redis_tx.core.messages import ICodec
from ws4redis_tx.emulation.framing import BINARY, EVENTS, LINES
from ws4redis_tx.emulation.node import Node
from ws4redis_tx.emulation.request import Request
from ws4redis_tx.emulation.stream import EmulatedStream, digest
from ws4redis_tx.protocols.centrifuge.wire import json as json_form
from ws4redis_tx.protocols.centrifuge.wire import protobuf
from ws4redis_tx.protocols.centrifuge.wire.schema import EMULATION, Malformed, Values
from ws4redis_tx.sessions.opening_handshake import OpeningHandshake

if TYPE_CHECKING:
    from ws4redis_tx.sessions.server import Server

HTTP_STREAM, SSE, POSTS = "http_stream", "sse", "emulation"

DEFAULT_PLACE = "/emulation"
"""The JavaScript library sends its POSTs there unless it is told otherwise."""

_CONNECT = "cf_connect"


class Emulation:
    """An ``IHttp``: streams, and the POSTs of their clients. One for each server."""

    def __init__(self, server: Server, path: str) -> None:
        """``path`` is that of the protocol."""
        self._server = server
        self._streams: dict[str, EmulatedStream] = {}
        self._node = Node(server.config.prefix, server.broker, server.reactor, self._take)
        places = {f"{path}{kind}": kind for kind in (HTTP_STREAM, SSE, POSTS)}
        places[DEFAULT_PLACE] = POSTS
        below = server.config.script_name
        self._kinds = {**{f"{below}{place}": kind for place, kind in places.items()}, **places}

    @property
    def paths(self) -> list[str]:
        return list(self._kinds)

    def serves(self, path: str) -> bool:
        return path in self._kinds

    def stop(self) -> None:
        self._node.stop()

    def begin(
        self, opening: OpeningHandshake, request: HttpRequest, rest: bytes
    ) -> Deferred[None] | None:
        kind = self._kinds[request.path]
        if kind == POSTS or request.method == "OPTIONS":
            return self._begin_post(opening, request, rest)
        return self._begin_stream(opening, request, rest, kind)

    # Streams

    def _begin_stream(
        self, opening: OpeningHandshake, request: HttpRequest, rest: bytes, kind: str
    ) -> Deferred[None]:
        session = opening.session
        framing = EVENTS if kind == SSE else BINARY if _is_binary(request) else LINES
        stream = EmulatedStream(session, request, rest, framing, self._node.name, self._streams)
        session.transport = stream
        request, commands = _without_commands(request)
        if request.method != "POST" and (kind != SSE or request.method != "GET"):
            allowed = "GET, POST, OPTIONS" if kind == SSE else "POST, OPTIONS"
            raise Denied(405, "Use POST.", headers=(("Allow", allowed),))
        if request.method == "GET" and commands is None:
            raise Denied(400, f"The parameter {_CONNECT} is missing.")
        below, protocol = self._server.place(_as_get(request))
        opening.judge(below, protocol.path, events=True)
        session.handshake = replace(session.handshake, stream=stream.stream)
        session.outbox.codec = stream.negotiate(session.handshake)

        def read(data: bytes) -> Deferred[None]:
            stream.first = data if commands is None else commands.encode()
            return self._node.listen()

        def ask(_: None) -> Deferred[Any] | None:
            if session.ended:
                return None
            session.protocol = protocol
            return protocol.handshake(session)

        stream.accepted = stream.read_body().addCallback(read).addCallback(ask)
        return stream.accepted

    def _take(self, name: str, data: bytes) -> None:
        stream = self._streams.get(name)
        if stream is not None:
            stream.take(data)

    # POSTs, and the questions of browsers whether they may be sent

    def _begin_post(
        self, opening: OpeningHandshake, request: HttpRequest, rest: bytes
    ) -> Deferred[None] | None:
        session = opening.session
        post = session.transport = Post(session, request, rest)
        if request.method not in ("POST", "OPTIONS"):
            raise Denied(405, "Use POST.", headers=(("Allow", "POST, OPTIONS"),))
        opening.judge(_as_get(request), request.path, events=True, lasting=False)
        headers = self._server.origins.sharing(session.handshake)
        if request.method == "OPTIONS":
            asked = session.handshake.headers.get("access-control-request-headers", "")
            headers = [
                *headers,
                ("Access-Control-Allow-Methods", "POST, OPTIONS"),
                *([("Access-Control-Allow-Headers", asked)] if asked else []),
                ("Access-Control-Max-Age", "300"),
            ]
            post.answer(204, headers)
            session.ended = True
            return None

        def passed_on(taken: bool) -> None:
            if not taken:
                raise Denied(404, "There is no such stream.", detail="a POST for no process")
            if not session.ended:
                session.ended = True
                post.answer(204, headers)

        taken = post.read_body().addCallback(self._pass_on, _is_binary(request))
        return taken.addCallback(passed_on)

    def _pass_on(self, body: bytes, binary: bool) -> Deferred[bool]:
        try:
            form: Any = protobuf if binary else json_form
            values: Values = form.decode(body, EMULATION)
            data = values.get("data", b"")
            if not binary:
                text = json.loads(data) if data else ""
                if not isinstance(text, str):
                    raise Malformed
                data = text.encode()
        except (Malformed, ValueError, RecursionError):
            raise Denied(400, "The body is malformed.") from None
        return self._node.pass_on(values.get("node", ""), digest(values.get("session", "")), data)


class Post(Request):
    """An ``ITransport`` for one POST, which is refused or answered, and never accepted."""

    def negotiate(self, handshake: Handshake) -> ICodec:
        return LINES

    def accept(self, handshake: Handshake) -> None:
        """Never."""

    def close(self, code: int, reason: str) -> None:
        """It is over soon."""

    def check_liveness(self) -> None:
        """It is over soon."""


def _is_binary(request: HttpRequest) -> bool:
    return any(
        name == "content-type" and value.lower().startswith("application/octet-stream")
        for name, value in request.headers
    )


def _as_get(request: HttpRequest) -> HttpRequest:
    """As the request that is judged like that of a stream of events."""
    body = ("content-length", "transfer-encoding")
    without = tuple(each for each in request.headers if each[0] not in body)
    return replace(request, method="GET", headers=without)


def _without_commands(request: HttpRequest) -> tuple[HttpRequest, str | None]:
    """The request without the parameter that holds commands, a token perhaps, and its value."""
    path, mark, query = request.target.partition("?")
    if not mark:
        return request, None
    parts = query.split("&")
    kept = [each for each in parts if unquote_plus(each.partition("=")[0]) != _CONNECT]
    raw = query.encode("latin-1").decode(errors="replace")
    commands = dict(parse_qsl(raw)).get(_CONNECT)
    return replace(request, target="?".join([path, "&".join(kept)]) if kept else path), commands
