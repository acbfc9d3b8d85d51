"""The opening handshake: its bytes read, its form judged, its answers written.

Nothing here knows sockets. Names and values stay as close to the wire as they can: bytes are
split at CR LF alone, so that no byte inside a value can start another header.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import responses
from urllib.parse import unquote_plus, unquote_to_bytes

from ws4redis_tx.core.errors import Denied

MAX_HEAD_BYTES = 16384

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VERSION = re.compile(r"HTTP/1\.[0-9]")
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+")

# No other byte may be in a value, or end a line.
_IN_A_CLEAN_HEAD = bytes((9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0x100)))

# Names of headers as they came → in lower case: of those that came first, which are most there are.
_NAMES: dict[str, str] = {}
_MOST_NAMES, _LONG_NAME = 512, 64

# What RFC 6455 appends to a key before it is hashed.
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# Said twice, these would leave it open which one counts.
_ONCE = frozenset({"host", "origin", "sec-websocket-key", "sec-websocket-version"})

_EXPLANATION = (
    "This URL speaks websocket, and the request does not ask to upgrade to a websocket. Open it "
    "with `new WebSocket('ws://…')` or another websocket client."
)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request's head as it came, nothing judged but its grammar.

    Headers are (lower-case name, value without surrounding blanks), in their order on the wire;
    ``malformed`` says what was wrong with them, if anything was.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)  # among them a cookie
    malformed: str = ""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A well-formed websocket handshake. Strings are latin-1 views of the bytes on the wire.

    ``path`` is still percent-encoded. ``flags`` are the query's parameter names in lower case, in
    order, without duplicates. ``secure`` tells whether the connection to this process is TLS,
    ``peer`` is the client's address or ``''``. ``redeemed`` never comes from a client: it is what
    the authorizer answered earlier, ``''`` at first.
    """

    path: str
    query: str
    websocket_url: str
    flags: tuple[str, ...]
    headers: Mapping[str, str] = field(repr=False)
    key: str
    subprotocols: tuple[str, ...] = field(repr=False)  # among them a token
    secure: bool
    peer: str
    redeemed: str = field(default="", repr=False)

    @property
    def facility(self) -> str:
        """Raises ``Denied`` (400) when its escapes are not UTF-8."""
        raw = self.path[len(self.websocket_url) :]
        if "%" not in raw and raw.isascii():
            return raw
        try:
            return unquote_to_bytes(raw.encode("latin-1")).decode()
        except UnicodeDecodeError:
            raise Denied(400, "The facility in the URL is not valid UTF-8.") from None

    @property
    def path_info(self) -> str:
        """The decoded path; what is not UTF-8 in it is replaced."""
        if "%" not in self.path and self.path.isascii():
            return self.path
        return unquote_to_bytes(self.path.encode("latin-1")).decode(errors="replace")


def read_request(head: bytes, malformed: str = "") -> HttpRequest:
    """Read a request's head, without the empty line that ends it.

    ``malformed`` says what is wrong with what surrounds it, if anything is.

    Raises ``Denied`` (400) when not even the request line can be read.
    """
    request_line, *lines = head.decode("latin-1").split("\r\n")
    parts = request_line.split(" ")
    if (
        len(parts) != 3
        or not _VERSION.fullmatch(parts[2])
        or not _TOKEN.fullmatch(parts[0])
        or not _TARGET.fullmatch(parts[1])
    ):
        raise Denied(400, "This is not an HTTP/1.1 request.")
    pairs = []
    malformed = _wrong_version(parts[2]) or malformed
    clean = not head.translate(None, _IN_A_CLEAN_HEAD)
    for line in lines:
        raw, colon, value = line.partition(":")
        name = _NAMES.get(raw) or _read_name(raw)
        value = value.strip(" \t")
        # After the split, a CR or LF is a stray one, and in a value as in a name.
        if (
            not colon
            or not name
            or not ((clean and "\r" not in value and "\n" not in value) or _VALUE.fullmatch(value))
        ):
            malformed = malformed or "A header line is malformed."
            continue
        pairs.append((name, value))
    return HttpRequest(parts[0], parts[1], tuple(pairs), malformed)


def _read_name(raw: str) -> str:
    """A header's name in lower case; ``""`` if it is none."""
    if not _TOKEN.fullmatch(raw):
        return ""
    name = raw.lower()
    if len(_NAMES) < _MOST_NAMES and len(name) < _LONG_NAME:
        _NAMES[raw] = name
    return name


def make_request(
    method: bytes,
    target: bytes,
    version: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    malformed: str = "",
) -> HttpRequest:
    """An ``HttpRequest`` from its parts, for whoever has split them already."""
    return HttpRequest(
        method.decode("latin-1"),
        target.decode("latin-1"),
        tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers),
        _wrong_version(version.decode("latin-1")) or malformed,
    )


def _wrong_version(version: str) -> str:
    return "" if version == "HTTP/1.1" else "A websocket is opened with HTTP/1.1."


def judge_request(
    request: HttpRequest, websocket_url: str, *, secure: bool, peer: str
) -> Handshake:
    """The handshake that ``request`` is. Raises ``Denied`` with the first thing that fails."""
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
        elif name in _ONCE:
            malformed = malformed or "A header that may stand once stands twice."
        else:
            headers[name] += ("; " if name == "cookie" else ", ") + value
    if "websocket" not in _words(headers.get("upgrade", "")) or (
        "upgrade" not in _words(headers.get("connection", ""))
    ):
        raise Denied(
            426,
            _EXPLANATION,
            headers=(("Upgrade", "websocket"), ("Connection", "Upgrade, close")),
        )
    if headers.get("sec-websocket-version") != "13":
        raise Denied(
            426,
            "Only version 13 of the websocket protocol is spoken here.",
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
        raise Denied(400, "A handshake has no body.")
    key = headers.get("sec-websocket-key", "")
    if not _is_key(key):
        raise Denied(400, "Sec-WebSocket-Key is missing or malformed.")
    subprotocols = _list(headers.get("sec-websocket-protocol", ""))
    if not all(_TOKEN.fullmatch(name) for name in subprotocols):
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


def refusal(denied: Denied) -> bytes:
    """The HTTP response that tells a client why it was refused."""
    body = f"{denied.reason}\n".encode()
    lines = [
        f"HTTP/1.1 {denied.status} {responses.get(denied.status, 'Refused')}",
        *(f"{name}: {value}" for name, value in denied.headers),
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    ]
    if not any(name == "Connection" for name, _ in denied.headers):
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


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
