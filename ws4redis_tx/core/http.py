"""Reads the head of an HTTP request, and writes the response that refuses one.

Lines are split only at CR LF, so no other byte inside a value can start another header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from http.client import responses

from ws4redis_tx.core.errors import ConfigError, Denied

MAX_HEAD_BYTES = 16384

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A token of RFC 9110: a method, a header's name, a subprotocol."""

_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VERSION = re.compile(r"HTTP/1\.[0-9]")
_SCRIPT_NAME = re.compile(r"(/[^/?#\s]+)*")
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+")

# The only bytes that may occur in a value or end a line.
_HEAD_BYTES = bytes((9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0x100)))

# Interns header names: as received → in lower case. Nothing is evicted: the common ones come first.
_NAMES: dict[str, str] = {}
_MAX_NAMES, _MAX_NAME_SIZE = 512, 64


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request's head as it was received. Only its grammar has been checked.

    Headers are (lower-case name, value without surrounding blanks), in their order on the wire.
    ``malformed`` says what is wrong with them, ``""`` if nothing is.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)  # one may be a cookie
    malformed: str = ""

    @property
    def path(self) -> str:
        """The target without its query, percent-encoded."""
        return self.target.partition("?")[0]

    def below(self, script_name: str) -> HttpRequest:
        """The request for the same page of a site that is mounted at ``script_name``."""
        if not script_name or not self.target.startswith(f"{script_name}/"):
            return self
        return replace(self, target=self.target[len(script_name) :])


def check_script_name(name: object) -> str:
    """Return ``name``, percent-encoded; ``""`` is the root. Raises ``ConfigError`` for what no path
    begins with.
    """
    if not isinstance(name, str) or not _SCRIPT_NAME.fullmatch(name):
        raise ConfigError(
            "FORCE_SCRIPT_NAME",
            f"is {name!r}, which is not the beginning of a path",
            "Write a path such as /app, without a '/' at its end.",
        )
    return name


def read_request(head: bytes, malformed: str = "") -> HttpRequest:
    """Read a request's head, without the empty line that ends it.

    ``malformed`` says what is wrong outside the head, ``""`` if nothing is.

    Raises ``Denied`` (400) if even the request line is invalid.
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
    clean = not head.translate(None, _HEAD_BYTES)
    for line in lines:
        raw, colon, value = line.partition(":")
        name = _NAMES.get(raw) or _read_name(raw)
        value = value.strip(" \t")
        # A CR or LF that is left after the split is stray: it makes a name or a value malformed.
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
    """A header's name in lower case; ``""`` if it is not a valid name."""
    if not TOKEN.fullmatch(raw):
        return ""
    name = raw.lower()
    if len(_NAMES) < _MAX_NAMES and len(name) < _MAX_NAME_SIZE:
        _NAMES[raw] = name
    return name


def make_request(
    method: bytes,
    target: bytes,
    version: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    malformed: str = "",
) -> HttpRequest:
    """An ``HttpRequest`` from parts that an HTTP server has already split."""
    return HttpRequest(
        method.decode("latin-1"),
        target.decode("latin-1"),
        tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers),
        _wrong_version(version.decode("latin-1")) or malformed,
    )


def _wrong_version(version: str) -> str:
    return "" if version == "HTTP/1.1" else "Use HTTP/1.1. In nginx: proxy_http_version 1.1;"


def refusal(denied: Denied, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """The HTTP response that tells a client why it was refused."""
    body = f"{denied.reason}\n".encode()
    lines = [
        f"HTTP/1.1 {denied.status} {responses.get(denied.status, 'Refused')}",
        *(f"{name}: {value}" for name, value in (*denied.headers, *headers)),
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    ]
    if not any(name == "Connection" for name, _ in denied.headers):
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
