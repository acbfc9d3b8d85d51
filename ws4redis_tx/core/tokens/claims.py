"""The claims of a token whose signature was verified, read and judged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.names import check_tenant

LEEWAY = 10.0
"""Seconds by which the clocks of the token's maker and of this server may differ: ``iat`` and
``nbf`` may be that far ahead.
"""

MOST_CHANNELS = 128
"""Names in ``channels`` and ``subs`` together, as many as one connection may have."""

_LONGEST = 255  # bytes of a name


class TokenInvalid(Denied):
    """A token that will never be good. The log's line names the ``claim`` that failed, or the part
    of the token (``alg``, ``signature``, ``form``); no text shows the token.
    """

    def __init__(self, claim: str, problem: str) -> None:
        self.claim = claim
        super().__init__(403, "The token is not valid.", detail=f"the token's {claim} {problem}")


class TokenExpired(Denied):
    """A token that is not good any more, or not yet. The client should ask for another one."""

    def __init__(self, claim: str, problem: str) -> None:
        self.claim = claim
        super().__init__(401, "The token has expired.", detail=f"the token's {claim} {problem}")


@dataclass(frozen=True, slots=True)
class ConnectionClaims:
    """What a connection token says.

    ``sub`` is the name in the user's channels, ``""`` for an anonymous visitor; ``pk`` their
    primary key. ``info`` is JSON, or ``b""``. ``subs`` has the channels of the claim ``subs``, each
    with its own ``info``, and with what the client is told there (``data``). ``issued`` and
    ``expires`` are in seconds since the epoch. ``text`` is the token itself.
    """

    sub: str
    groups: tuple[str, ...]
    pk: str | None
    info: bytes
    channels: tuple[str, ...]
    subs: Mapping[str, tuple[bytes, bytes]]
    tenant: str
    issued: float | None
    expires: float | None
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SubscriptionClaims:
    """What a subscription token says. ``sub`` is ``""`` for a connection without a user."""

    channel: str
    sub: str
    info: bytes
    tenant: str
    issued: float | None
    expires: float | None


def read_connection(claims: dict[str, Any], text: str) -> ConnectionClaims:
    """Raises ``TokenInvalid`` for claims that are none of a connection's."""
    if "channel" in claims:
        raise TokenInvalid("channel", "makes it a subscription token, which does not connect")
    channels = _names(claims, "channels")
    subs = claims.get("subs")
    if not isinstance(subs, dict | None):
        raise TokenInvalid("subs", "is not an object")
    if len(channels) + len(subs or ()) > MOST_CHANNELS:
        raise TokenInvalid("channels", f"are more than {MOST_CHANNELS}")
    infos = {}
    for name, options in (subs or {}).items():
        if not isinstance(options, dict | None):
            raise TokenInvalid("subs", "holds something that is not an object")
        options = options or {}
        infos[_checked_name("subs", name)] = _info(options), _info(options, "data")
    sub = _text(claims, "sub")
    pk = claims.get("pk")
    if isinstance(pk, int) and not isinstance(pk, bool) and abs(pk) < 2**128:
        pk = str(pk)
    elif pk is not None:
        pk = _text(claims, "pk")
    return ConnectionClaims(
        sub=sub,
        groups=_names(claims, "groups") if sub else (),
        pk=(pk or None) if sub else None,
        info=_info(claims),
        channels=channels,
        subs=infos,
        tenant=_tenant(claims),
        issued=_time(claims, "iat"),
        expires=_time(claims, "exp"),
        text=text,
    )


def read_subscription(claims: dict[str, Any]) -> SubscriptionClaims:
    """Raises ``TokenInvalid`` for claims that are none of a subscription's."""
    if "channel" not in claims:
        raise TokenInvalid("channel", "is missing: a connection token does not subscribe")
    return SubscriptionClaims(
        channel=_checked_name("channel", claims["channel"]),
        sub=_text(claims, "sub"),
        info=_info(claims),
        tenant=_tenant(claims),
        issued=_time(claims, "iat"),
        expires=_time(claims, "exp"),
    )


def check_times(claims: dict[str, Any], now: float, *, endless: bool) -> None:
    """Raises ``TokenInvalid`` or ``TokenExpired``."""
    issued, begins = _time(claims, "iat"), _time(claims, "nbf")
    expires = _time(claims, "exp")
    for name, value in (("iat", issued), ("exp", expires)):
        if value is None and not endless:
            raise TokenInvalid(
                name, "is missing (WS4REDIS_ENDLESS_TOKENS = True takes tokens without it)"
            )
    for name, value in (("iat", issued), ("nbf", begins)):
        if value is not None and value > now + LEEWAY:
            ahead = f"{value - now:.0f} s ahead of this server's clock"
            raise TokenExpired(name, f"is in the future, {ahead}")
    if expires is not None and expires <= now:
        raise TokenExpired("exp", f"was reached {now - expires:.0f} s ago")


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise TokenInvalid(name, "is not a time in seconds since the epoch")
    return float(value)


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    return "" if value is None else _checked(name, value)


def _names(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TokenInvalid(name, "is not a list of names")
    return tuple(dict.fromkeys(_checked_name(name, each) for each in value))


def _checked_name(claim: str, value: object) -> str:
    if not _checked(claim, value):
        raise TokenInvalid(claim, "holds an empty name")
    return str(value)


def _checked(claim: str, value: object) -> str:
    if not isinstance(value, str):
        raise TokenInvalid(claim, "is not a string")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise TokenInvalid(claim, "is not valid Unicode") from None
    if size > _LONGEST:
        raise TokenInvalid(claim, f"is longer than {_LONGEST} bytes")
    return value


def _tenant(claims: dict[str, Any]) -> str:
    value = claims.get("tenant")
    if value is None:
        return ""
    try:
        return check_tenant(value)
    except (TypeError, ValueError):
        raise TokenInvalid("tenant", "is not the name of a tenant") from None


def _info(claims: dict[str, Any], name: str = "info") -> bytes:
    value = claims.get(name)
    if value is None:
        return b""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (RecursionError, ValueError):
        raise TokenInvalid(name, "cannot be JSON") from None


def finite(text: str) -> float:
    """A number in JSON that no JSON could repeat is refused where it stands."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
