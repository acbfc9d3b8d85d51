"""Signed tokens, for clients that cannot send the session cookie: mobile apps, other programs.

A token says who its user is, and the server asks no database about it. A **connection token** lets
a client of Centrifuge's protocol connect, and a **subscription token** is the right to one channel.
Both end after ``ttl`` seconds, and the client's library then asks the site for another one. They
are void as soon as their user loses something: logs out, changes the password, leaves a group.

Knows Django's users and settings. Imports no reactor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import timedelta
from math import floor
from types import SimpleNamespace
from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.serializers.json import DjangoJSONEncoder

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.tokens import MOST_BYTES, Tokens
from ws4redis_tx.django.receivers import request_began
from ws4redis_tx.django.token_users import TokenUser
from ws4redis_tx.redis_store import identity_of

__all__ = ["TokenUser", "connection_token", "subscription_token"]

DEFAULT_SECONDS = 600

_LONGEST_NAME = 255  # bytes


def connection_token(
    user: Any,
    ttl: float = DEFAULT_SECONDS,
    info: Any = None,
    channels: Iterable[str] = (),
    *,
    tenant: str | None = None,
) -> str:
    """Make a token with which a client connects as ``user``: with the user's name, primary key and
    present groups. ``None`` or an anonymous user makes a token for a visitor who is not logged in.

    :param ttl: seconds until it ends.
    :param info: what others see of the user, as JSON: in presence, and with messages that the user
        publishes.
    :param channels: names of channels to which the connection is subscribed from the beginning,
        such as ``broadcast:news``. The token is the right to them.
    :param tenant: whose site it is for, with ``WS4REDIS_TENANT``.

    Queries the database for the groups. Raises ``PermissionDenied`` for a user who may not log in,
    ``TypeError`` or ``ValueError`` for an argument that cannot work, and ``ConfigError`` without
    PyJWT.
    """
    claims = _times(ttl)  # before the groups are read: a change afterwards makes it void
    identity = _identity_of(user)
    if identity.username is not None:
        claims["sub"] = identity.username
        if identity.user_id is not None:
            claims["pk"] = identity.user_id
        if identity.groups:
            claims["groups"] = list(identity.groups)
    names = _names(channels)
    if names:
        claims["channels"] = names
    return _sign(claims, info, tenant)


def subscription_token(
    channel: str,
    user: Any = None,
    ttl: float = DEFAULT_SECONDS,
    info: Any = None,
    *,
    tenant: str | None = None,
) -> str:
    """Make a token that is the right to subscribe to ``channel``, whatever
    ``WS4REDIS_ALLOWED_CHANNELS`` says: ``broadcast:FACILITY`` or ``group:GROUP:FACILITY``.

    :param user: whose connection may use it. ``None`` is for a connection without a user: that of
        somebody who is logged in is closed if it shows such a token.

    The other arguments are those of ``connection_token``, and so are the errors.
    """
    claims = _times(ttl)
    [claims["channel"]] = _names([channel])
    word = channel.partition(":")[0]
    if word in ("user", "session"):
        raise ValueError(
            f"channel={channel!r} means a client's own {word}, which needs no token. A token is "
            "for 'broadcast:FACILITY' or 'group:GROUP:FACILITY'."
        )
    identity = _identity_of(user)
    if identity.username is not None:
        claims["sub"] = identity.username
    return _sign(claims, info, tenant)


def _times(ttl: object) -> dict[str, Any]:
    """It is issued when the request began, as is what the view knows of the user."""
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl < 1e10:
        raise ValueError(f"ttl={ttl!r} is not a number of seconds. Write ttl=600 for ten minutes.")
    now, began = time.time(), request_began()
    issued = now if began is None else now - max(0.0, time.monotonic() - began)
    # Rounded down: what is revoked in the same millisecond concerns it.
    return {"iat": floor(issued * 1000) / 1000, "exp": round(now + ttl, 3)}


def _identity_of(user: Any) -> Identity:
    if user is None:
        return Identity()
    if not hasattr(user, "is_authenticated"):
        remedy = "Pass a user, such as request.user."
        if hasattr(user, "user"):
            remedy = "Pass its user: request.user."
        raise TypeError(f"user is a {type(user).__name__}, not a user. {remedy}")
    if user.is_authenticated and not getattr(user, "is_active", True):
        raise PermissionDenied("This account is not active: it gets no token.")
    if user.is_authenticated and not user.get_username():
        raise ValueError("The user has no name. A token names the user by get_username().")
    return identity_of(SimpleNamespace(user=user))


def _names(channels: object) -> list[str]:
    if isinstance(channels, str | bytes) or not isinstance(channels, Iterable):
        raise TypeError(f"channels={channels!r} is not a list of names. Write ['broadcast:news'].")
    names = list(channels)
    for name in names:
        if not isinstance(name, str) or not 0 < len(name.encode()) <= _LONGEST_NAME:
            raise ValueError(
                f"{name!r:.200} is not the name of a channel. Write 'broadcast:news', or "
                "'group:staff:news'."
            )
    return names


def _sign(claims: dict[str, Any], info: Any, tenant: str | None) -> str:
    django_settings.get_namespace(tenant)  # raises if there must be a tenant, or must not
    if tenant:
        claims["tenant"] = tenant
    if info is not None:
        claims["info"] = info
    try:
        payload = json.dumps(
            claims, cls=DjangoJSONEncoder, separators=(",", ":"), allow_nan=False
        ).encode()
    except (TypeError, ValueError) as error:
        raise type(error)(f"info={info!r:.200} cannot be JSON: {error}") from None
    secrets = django_settings.get_token_secrets()
    if not secrets:
        raise ConfigError(
            "WS4REDIS_TOKEN_SECRET",
            "is not set, and neither is SECRET_KEY",
            "Set one of them.",
        )
    token = Tokens(secrets).sign(payload)
    if len(token) > MOST_BYTES:
        raise ValueError(
            f"The token has {len(token)} bytes, and the server takes {MOST_BYTES}. Shorten info= "
            "or channels=, or let the user be in fewer groups."
        )
    return token
