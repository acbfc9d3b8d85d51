"""Checks the form of a websocket's opening handshake, and writes the response that accepts it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import quote, unquote_plus, unquote_to_bytes

from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.http import TOKEN, HttpRequest

# RFC 6455 appends this to a key before hashing it.
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# If one of these occurred twice, it would be unclear which one counts.
_SINGLE_HEADERS = frozenset({"host", "origin", "sec-websocket-key", "sec-websocket-version"})

WEBSOCKET_URL = "ws4redis.websocket_url"
"""The key in a request's ``META`` of the URL path at which its server serves websockets."""

_EXPLANATION = (
    "This URL serves websockets, but the request does not ask to upgrade to a websocket. Open "
    "it with `new WebSocket('ws://…')` or another websocket client."
)


@dataclass(frozen=True, slots=True)
class Handshake:
    """A well-formed websocket handshake. Strings are the bytes on the wire, decoded as latin-1.

    ``path`` is still percent-encoded. ``flags`` are the query's parameter names in lower case, in
    order, without duplicates. ``secure`` tells whether the connection to this process uses TLS;
    ``peer`` is the client's address or ``''``. ``redeemed`` never comes from a client: it is
    ``''`` at first, and later the value from the authorizer's earlier answer. ``credential`` is
    the proof of identity that a client sent after its websocket opened; ``''`` in protocols
    without such a message. ``events`` tells that the client asks for server-sent events in place of
    a websocket; its ``key`` is ``""`` then. ``stream`` holds what a client must repeat
    when it sends over other connections than the one it listens on. ``recheck`` tells that the
    websocket is open, and its rights are checked again.
    """

    path: str
    query: str
    websocket_url: str
    flags: tuple[str, ...]
    headers: Mapping[str, str] = field(repr=False)
    key: str
    subprotocols: tuple[str, ...] = field(repr=False)  # one may be a token
    secure: bool
    peer: str
    redeemed: str = field(default="", repr=False)
    credential: str = field(default="", repr=False)
    recheck: bool = False
    events: bool = False
    stream: Mapping[str, str] | None = field(default=None, repr=False)  # holds a secret

    @property
    def names_facility(self) -> bool:
        """Whether the path is one of a facility. It is not while a client with a ``credential`` is
        only identified.
        """
        return self.path.startswith(self.websocket_url)

    @property
    def facility(self) -> str:
        """``""`` for a connection that has none. Raises ``Denied`` (400) when its escapes are not
        UTF-8.
        """
        path, start = self.path, self.websocket_url
        raw = path[len(start) :] if path.startswith(start) else ""
        if "%" not in raw and raw.isascii():
            return raw
        try:
            return unquote_to_bytes(raw.encode("latin-1")).decode()
        except UnicodeDecodeError:
            raise Denied(400, "The facility in the URL is not valid UTF-8.") from None

    def on_facility(self, facility: str, rights: Sequence[str]) -> Handshake:
        """That of a classic websocket of the same visitor, for ``rights`` on ``facility``."""
        path = self.websocket_url + quote(facility)
        return replace(self, path=path, query="&".join(rights), flags=tuple(rights))

    @property
    def path_info(self) -> str:
        """The decoded path. Bytes that are not UTF-8 are replaced."""
        if "%" not in self.path and self.path.isascii():
            return self.path
        return unquote_to_bytes(self.path.encode("latin-1")).decode(errors="replace")


def asks_for_websocket(request: HttpRequest) -> bool:
    """Whether ``request`` is meant as a handshake, well-formed or not."""
    return any(
        name == "upgrade" and "websocket" in _words(value) for name, value in request.headers
    )


def asks_for_events(request: HttpRequest) -> bool:
    """Whether ``request`` asks for server-sent events, and not for a websocket."""
    for name, value in request.headers:
        if name == "accept" and "text/event-stream" in value.lower():
            return not asks_for_websocket(request)
    return False


def judge_request(
    request: HttpRequest, websocket_url: str, *, secure: bool, peer: str, events: bool = False
) -> Handshake:
    """Return ``request`` as a handshake. Raises ``Denied`` for the first check that fails."""
    path, _, query = request.target.partition("?")
    if not path.startswith(websocket_url):
        raise Denied(404, "There is no websocket at this path.")
    if request.method != "GET":
        raise Denied(405, "A websocket is opened with GET.", headers=(("Allow", "GET"),))
    headers: dict[str, str] = {}
    malformed = request.malformed
    for name, value in request.headers:
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE_HEADERS:
            malformed = malformed or "A header that may occur only once occurs twice."
        else:
            headers[name] += ("; " if name == "cookie" else ", ") + value
    if not events and (
        "websocket" not in _words(headers.get("upgrade", ""))
        or "upgrade" not in _words(headers.get("connection", ""))
    ):
        raise Denied(
            426,
            _EXPLANATION,
            headers=(("Upgrade", "websocket"), ("Connection", "Upgrade, close")),
        )
    if not events and headers.get("sec-websocket-version") != "13":
        raise Denied(
            426,
            "This server speaks only version 13 of the websocket protocol.",
            headers=(
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade, close"),
                ("Sec-WebSocket-Version", "13"),
            ),
        )
    if malformed:
        raise Denied(400, malformed)
    if not headers.get("host"):
        raise Denied(400, "The request has no Host header.")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise Denied(400, "A handshake must not have a body.")
    key = "" if events else headers.get("sec-websocket-key", "")
    if not events and not _is_key(key):
        raise Denied(400, "Sec-WebSocket-Key is missing or malformed.")
    subprotocols: Sequence[str] = ()
    if "sec-websocket-protocol" in headers:
        subprotocols = _list(headers["sec-websocket-protocol"])
        if not all(TOKEN.fullmatch(name) for name in subprotocols):
            raise Denied(400, "Sec-WebSocket-Protocol is malformed.")
    return Handshake(
        path=path,
        query=query,
        websocket_url=websocket_url,
        flags=_flags(query),
        headers=headers,
        key=key,
        subprotocols=tuple(subprotocols),
        secure=secure,
        peer=peer,
        events=events,
    )


def acceptance(handshake: Handshake, subprotocol: str | None, headers: Mapping[str, str]) -> bytes:
    """The HTTP response that opens a websocket."""
    digest = hashlib.sha1(handshake.key.encode("latin-1") + _MAGIC, usedforsecurity=False).digest()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {binascii.b2a_base64(digest, newline=False).decode()}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _list(value: str) -> list[str]:
    return [word for word in (word.strip(" \t") for word in value.split(",")) if word]


@lru_cache(maxsize=64)
def _words(value: str) -> list[str]:
    return [word.lower() for word in _list(value)]


@lru_cache(maxsize=64)
def _flags(query: str) -> tuple[str, ...]:
    names = (
        unquote_plus(part.partition("=")[0]).strip().lower() for part in query.split("&") if part
    )
    return tuple(dict.fromkeys(names))


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
