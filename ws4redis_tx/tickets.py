"""Tickets, each good for one websocket: for clients that have no cookie to send along.

A session's cookie belongs to Django's host. A page that opens its websocket on another host, and a
program that logs in to an API by other means, ask Django for a ticket and show that instead. It
says who asked, and lets in that user with that session, as the cookie would have; from then on the
websocket is watched and ended like any other.

What a ticket stands for is kept in Redis for some seconds, under a digest of it, so that who reads
there cannot use it. Whoever shows the ticket takes that away.

Knows Django's requests, and how a ticket is offered in a handshake. Imports no reactor.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, load_backend
from django.contrib.sessions.backends import signed_cookies
from django.core.exceptions import PermissionDenied

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import check_facility, known_rights, ticket_key
from ws4redis_tx.redis_store import user_id_of
from ws4redis_tx.threads import bridge

__all__ = ["amake_ticket", "make_ticket"]

DEFAULT_SECONDS = 30
"""From the view's answer to the websocket's handshake; a second is usual."""

_MARK = "ws4redis.ticket."


def make_ticket(
    request: Any,
    *,
    facility: str | None = None,
    rights: Collection[str] | None = None,
    seconds: int = DEFAULT_SECONDS,
) -> str:
    """A ticket for the user who sent ``request``, good once within ``seconds``.

    It is a word to be offered as the second subprotocol, after a name that the server may answer:
    ``new WebSocket(url, ["ws4redis", ticket])``.

    :param facility: the only one it is good for.
    :param rights: the most that it grants, such as ``["subscribe-user"]``; fewer if the user may
        have fewer.

    Raises ``PermissionDenied``, which Django answers with 403, when nobody is logged in;
    ``ValueError`` for a facility or right that there is none of; ``BrokerUnavailable`` without
    Redis. Blocks for ``WS4REDIS_TIMEOUT`` seconds at most.
    """
    bridge.must_not_wait_on_event_loop(_INSTEAD[0])
    text = _describe(request, facility, rights, seconds)
    return _keep(text, seconds)


async def amake_ticket(
    request: Any,
    *,
    facility: str | None = None,
    rights: Collection[str] | None = None,
    seconds: int = DEFAULT_SECONDS,
) -> str:
    """``make_ticket`` for async views: does not block the event loop."""
    text = await sync_to_async(_describe)(request, facility, rights, seconds)
    return await asyncio.to_thread(_keep, text, seconds)


_INSTEAD = (
    "await ws4redis_tx.tickets.amake_ticket(…)",
    "twisted.internet.threads.deferToThread(make_ticket, …)",
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket stood for.

    ``user_id`` is whom it was made for. ``session`` is the key of a session; without one, ``user``
    has the items that a session would have held. ``text`` is all of it, for ``read_ticket``.
    """

    user_id: str | None
    session: str | None = field(repr=False)
    user: Mapping[str, str] = field(repr=False)
    facility: str | None
    rights: tuple[str, ...] | None
    text: str = field(repr=False)

    def narrow(self, rights: Iterable[str]) -> tuple[str, ...]:
        """Those of ``rights`` that it is good for."""
        return tuple(each for each in rights if self.rights is None or each in self.rights)


def redeem(handshake: Handshake) -> Ticket | None:
    """What the ticket of ``handshake`` stands for; ``None`` if none was offered. It is used up.

    About a handshake whose ticket was redeemed earlier, the same again. Blocks; not for the reactor
    thread. Raises ``Denied`` for a ticket that is not good, or not for this.
    """
    if handshake.redeemed:
        return read_ticket(handshake.redeemed)
    offered = [word for word in handshake.subprotocols if word.startswith(_MARK)]
    if not offered:
        return None
    if offered != [*handshake.subprotocols[1:2]]:
        # What is answered stands in places that a credential must not get to.
        raise Denied(400, "Offer two subprotocols: a name that may be answered, then the ticket.")
    key = _key(offered[0])
    text = bridge.redis().take(key)
    if text is None:
        raise Denied(403, "The ticket is not good, or not any more.")
    ticket = read_ticket(text)
    if ticket.facility not in (None, handshake.facility):
        raise Denied(403, "The ticket is for another facility.")
    return ticket


def read_ticket(text: bytes | str) -> Ticket:
    found = json.loads(text)
    rights = found["rights"]
    return Ticket(
        user_id=found["user_id"],
        session=found["session"],
        user=found["user"],
        facility=found["facility"],
        rights=None if rights is None else tuple(rights),
        text=text if isinstance(text, str) else text.decode(),
    )


def _key(ticket: str) -> bytes:
    return ticket_key(
        django_settings.get_prefix(), hashlib.sha256(ticket.encode("latin-1")).hexdigest()
    )


def _keep(text: str, seconds: int) -> str:
    ticket = _MARK + secrets.token_urlsafe(32)
    key = _key(ticket)
    bridge.redis().put(key, text.encode(), seconds, instead=_INSTEAD)
    return ticket


def _describe(
    request: Any, facility: str | None, rights: Collection[str] | None, seconds: int
) -> str:
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
        raise ValueError(f"seconds={seconds!r} is not a number of seconds, at least 1.")
    if facility is not None:
        check_facility(facility, ())
    session, user = _who(request)
    return json.dumps(
        {
            "user_id": user_id_of(request.user),
            "session": session,
            "user": user,
            "facility": facility,
            "rights": None if rights is None else _checked(rights),
        }
    )


def _checked(rights: Collection[str]) -> list[str]:
    if isinstance(rights, str | bytes):
        raise TypeError(f"rights={rights!r} is not a list of rights. Write rights=[{rights!r}].")
    known = known_rights(django_settings.get_callable("WS4REDIS_SUBSCRIBER"))
    for right in rights:
        if right not in known:
            raise ValueError(f"rights holds {right!r}, which is none of {', '.join(sorted(known))}")
    return list(rights)


def _who(request: Any) -> tuple[str | None, dict[str, str]]:
    """The key of the session that ``request`` came with, or else what tells its user."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        raise PermissionDenied("Nobody is logged in, whom a ticket could be for.")
    session: Any = getattr(request, "session", None)
    session_key: str | None = getattr(session, "session_key", None)
    if isinstance(session, signed_cookies.SessionStore):
        session_key = None  # it is the credential itself
    if django_settings.get("WS4REDIS_PROCESS_REQUEST") is not None:
        if session_key is None:
            raise PermissionDenied(
                "WS4REDIS_PROCESS_REQUEST is set, which finds the user by the session: there is no "
                "session that a ticket could stand for."
            )
        return session_key, {}
    primary_key = user._meta.pk.value_to_string(user)
    if session_key is not None and session.get(SESSION_KEY) == primary_key:
        return session_key, {}
    return None, {
        SESSION_KEY: primary_key,
        BACKEND_SESSION_KEY: _backend_of(user),
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }


def _backend_of(user: Any) -> str:
    """The one that finds the user, which it does not if the user may not log in."""
    own = getattr(user, "backend", None)
    for path in [own] if own else settings.AUTHENTICATION_BACKENDS:
        if load_backend(path).get_user(user.pk) is not None:
            return str(path)
    raise PermissionDenied("No authentication backend knows the user, or lets the user log in.")
