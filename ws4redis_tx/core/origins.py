"""The rules for the Host and Origin headers of a handshake.

Browsers send cookies with a websocket handshake from any site, and leave it to the server to check
the Origin. They also reach a server under any name that resolves to it (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from ws4redis_tx.core.errors import ConfigError, Denied, shown
from ws4redis_tx.core.handshake import Handshake

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\*\.)?([^/\s@*?#]+)", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s@?#,]+)(?::([0-9]{1,5}))?")

# Characters of a client's host that a sentence repeats: as many as the longest name has.
_LONGEST_SHOWN = 253


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    host: str
    port: int
    subdomains: bool = False

    def matches(self, other: _Origin) -> bool:
        return (self.scheme, self.port) == (other.scheme, other.port) and self.names(other.host)

    def names(self, host: str) -> bool:
        return host.endswith("." + self.host) if self.subdomains else host == self.host


class OriginPolicy:
    """Checks ``Host`` and ``Origin``.

    ``allowed_hosts`` are patterns as in Django's ``ALLOWED_HOSTS``; ``None`` allows loopback names
    and the hosts of ``allowed_origins``. An allowed origin is exact (``https://a.example``), has
    subdomains (``https://*.example.com``), or is ``*`` for all. Every browser sends an Origin; a
    request without one is allowed unless ``require_origin`` is true.

    Raises ``ConfigError`` for an invalid origin.
    """

    def __init__(
        self,
        allowed_origins: Sequence[str] = (),
        allowed_hosts: Sequence[str] | None = None,
        *,
        require_origin: bool = False,
    ) -> None:
        self._any_origin = "*" in allowed_origins
        self._origins = [_configured(text) for text in allowed_origins if text != "*"]
        self._allowed_hosts = allowed_hosts
        self._require_origin = require_origin

    def check(self, handshake: Handshake) -> None:
        """Raise ``Denied``: 400 for a Host that is not ours, 403 for a forbidden Origin."""
        host_header = handshake.headers["host"]
        host = _HOST.fullmatch(host_header)
        if host is None or not self._is_ours(host[1].lower().rstrip(".")):
            raise Denied(
                400,
                "The Host header names a host that is not served here.",
                detail=f"Host {shown(host_header)} is not in ALLOWED_HOSTS"
                + (
                    ""
                    if self._allowed_hosts is not None
                    else " (without Django: loopback, or the host of an --origin)"
                ),
            )
        text = handshake.headers.get("origin")
        if text is None:
            site = handshake.headers.get("sec-fetch-site")
            if site in ("same-site", "cross-site"):
                raise Denied(
                    403,
                    "This origin may not connect.",
                    detail=f"no Origin, Sec-Fetch-Site {site}, Host {shown(host_header)}",
                )
            # Browsers send no Origin with an EventSource to the page's own host.
            if self._require_origin and site != "same-origin":
                raise Denied(
                    403,
                    "This origin may not connect.",
                    detail=f"no Origin, Host {shown(host_header)}; WS4REDIS_REQUIRE_ORIGIN is set",
                )
            return
        origin = _parse(text)
        if origin is None or not (
            self._any_origin
            or _same_host(origin, host[1].lower().rstrip("."), host[2], handshake.secure)
            or any(allowed.matches(origin) for allowed in self._origins)
        ):
            raise Denied(
                403,
                "This origin may not connect.",
                detail=f"Origin {shown(text)} does not match Host {shown(host_header)}; to allow "
                "it, add it to WS4REDIS_ALLOWED_ORIGINS (--origin)",
            )

    def sharing(self, handshake: Handshake) -> list[tuple[str, str]]:
        """The headers by which a page of an allowed foreign origin may read a response. Only an
        origin that is named may send its visitors' cookies.
        """
        text = handshake.headers.get("origin")
        origin = _parse(text or "")
        if text is None or origin is None:
            return []
        if any(allowed.matches(origin) for allowed in self._origins):
            return [
                ("Access-Control-Allow-Origin", text),
                ("Access-Control-Allow-Credentials", "true"),
                ("Vary", "Origin"),
            ]
        return [("Access-Control-Allow-Origin", "*")] if self._any_origin else []

    def _is_ours(self, host: str) -> bool:
        if self._allowed_hosts is not None:
            return any(_host_matches(host, pattern.lower()) for pattern in self._allowed_hosts)
        return (
            self._any_origin
            or _is_loopback(host)
            or any(allowed.names(host) for allowed in self._origins)
        )


def other_page(handshake: Handshake) -> str:
    """A sentence about a page on another host than the websocket's, whose cookies do not come;
    ``""`` for any other client. The port does not matter to cookies.
    """
    origin = _parse(handshake.headers.get("origin", ""))
    host = _HOST.fullmatch(handshake.headers["host"])
    if origin is None or host is None or origin.host == host[1].lower().rstrip("."):
        return ""
    return (
        f" The page is on {origin.host[:_LONGEST_SHOWN]}, and this websocket on "
        f"{host[1][:_LONGEST_SHOWN]}: a browser sends the cookies of one host to no other. Serve "
        "both on one host, share the cookie with SESSION_COOKIE_DOMAIN, or use a ticket."
    )


@lru_cache(maxsize=64)
def _parse(text: str) -> _Origin | None:
    match = _ORIGIN.fullmatch(text)
    if match is None or match[2]:
        return None
    return _origin(match)


def _configured(text: str) -> _Origin:
    match = _ORIGIN.fullmatch(text) if isinstance(text, str) else None
    origin = _origin(match) if match else None
    if origin is None:
        raise ConfigError(
            "WS4REDIS_ALLOWED_ORIGINS",
            f"holds {text!r}, which is not an origin",
            "Write a scheme and a host, as in https://example.com or https://*.example.com, or "
            "write '*'.",
        )
    return origin


def _origin(match: re.Match[str]) -> _Origin | None:
    scheme = match[1].lower()
    try:
        parts = urlsplit(f"{scheme}://{match[3]}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or _HOST.fullmatch(match[3]) is None:
        return None
    if port is None:
        port = _DEFAULT_PORTS.get(scheme, 0)
    return _Origin(scheme, _bracketed(host), port, bool(match[2]))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host.rstrip(".")


def _same_host(origin: _Origin, host: str, port: str | None, secure: bool) -> bool:
    if secure and origin.scheme != "https":
        return False
    if origin.scheme not in _DEFAULT_PORTS:
        return False
    host_port = int(port) if port else _DEFAULT_PORTS[origin.scheme]
    return (origin.host, origin.port) == (host, host_port)


def _host_matches(host: str, pattern: str) -> bool:
    if pattern.startswith("."):
        return host.endswith(pattern) or host == pattern[1:]
    return pattern in ("*", host)


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
