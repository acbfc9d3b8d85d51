"""The head of an HTTP request, read; and the answer that refuses one.

Names and values stay as close to the wire as they can: bytes are split at CR LF alone, so that no
byte inside a value can start another header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import responses

from ws4redis_tx.core.errors import Denied

MAX_HEAD_BYTES = 16384

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A token of RFC 9110: a method, a header's name, a subprotocol."""

_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VERSION = re.compile(r"HTTP/1\.[0-9]")
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+")

# No other byte may be in a value, or end a line.
_IN_A_CLEAN_HEAD = bytes((9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0x100)))

# Interns the names of headers: as they came → in lower case. The first ones are the common ones.
_NAMES: dict[str, str] = {}
_MOST_NAMES, _LONG_NAME = 512, 64


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

    @property
    def path(self) -> str:
        """The target without its query, percent-encoded."""
        return self.target.partition("?")[0]


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
        or not TOKEN.fullmatch(parts[0])
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
    if not TOKEN.fullmatch(raw):
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
