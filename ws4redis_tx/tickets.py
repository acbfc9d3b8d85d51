"""Single-use tickets, for clients that cannot send the session cookie.

The session cookie belongs to Django's host. A page that opens its websocket on another host cannot
send it, nor can a program that logs in to an API by other means. They ask Django for a ticket and
offer it in the handshake instead. The ticket stands for the user and session that asked for it. The
server treats the websocket as if the cookie had come: it rechecks and revokes it like any other.

Redis keeps the ticket's content for some seconds, under a digest of the ticket, so somebody who can
read Redis cannot use the ticket. Redeeming a ticket deletes its content.

Knows Django's requests, and how a handshake offers a ticket. Imports no reactor.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, load_backend
from django.core.exceptions import PermissionDenied

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import Denied, nearest
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import (
    TICKET_PREFIX,
    check_facility,
    facility_text,
    known_rights,
    ticket_key,
)
from ws4redis_tx.core.tokens import TokenExpired
from ws4redis_tx.redis_store import session_key_of, user_id_of
from ws4redis_tx.threads import bridge

__all__ = ["amake_ticket", "make_ticket"]

DEFAULT_SECONDS = 30
"""The time from the view's response to the handshake. It usually takes about a second."""


def make_ticket(
    request: Any,
    *,
    facility: str | None = None,
    rights: Collection[str] | None = None,
    seconds: int = DEFAULT_SECONDS,
) -> str:
    """Make a ticket for the user who sent ``request``, valid once within ``seconds``.

    The client offers it as the second subprotocol, after a name that the server may select:
    ``new WebSocket(url, ["ws4redis", ticket])``. For server-sent events it is a parameter of the
    URL: ``new EventSource(`${url}&ticket=${ticket}`)``.

    :param facility: the only facility that the ticket is valid for. The default is all of them.
    :param rights: the only rights that the ticket can grant, such as ``["subscribe-user"]``. It
        never grants a right that the user does not have.

    Raises ``PermissionDenied``, which Django answers with 403, when nobody is logged in;
    ``ValueError`` for an invalid facility or an unknown right; ``BrokerUnavailable`` when the call
    to Redis fails. Blocks for at most ``WS4REDIS_TIMEOUT`` seconds.
    """
    bridge.must_not_wait_on_event_loop(_ALTERNATIVES[0])
    ticket, key, text = _new_ticket(request, facility, rights, seconds)
    bridge.redis().put(key, text.encode(), seconds, instead=_ALTERNATIVES)
    return ticket


async def amake_ticket(
    request: Any,
    *,
    facility: str | None = None,
    rights: Collection[str] | None = None,
    seconds: int = DEFAULT_SECONDS,
) -> str:
    """``make_ticket`` for async views: does not block the event loop."""
    ticket, key, text = await sync_to_async(_new_ticket)(request, facility, rights, seconds)
    await bridge.redis().aput(key, text.encode(), seconds)
    return ticket


_ALTERNATIVES = (
    "await ws4redis_tx.tickets.amake_ticket(…)",
    "twisted.internet.threads.deferToThread(make_ticket, …)",
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The content of a redeemed ticket.

    ``user_id`` is the user it was made for. ``session`` is a session key; without one, ``user``
    has the items that a session would have held. ``text`` is the serialized whole, for
    ``read_ticket``.
    """

    user_id: str | None
    session: str | None = field(repr=False)
    user: Mapping[str, str] = field(repr=False)
    facility: str | None
    rights: tuple[str, ...] | None
    text: str = field(repr=False)

    def narrow(self, rights: Iterable[str]) -> tuple[str, ...]:
        """Those of ``rights`` that the ticket can grant."""
        return tuple(each for each in rights if self.rights is None or each in self.rights)

    def check_facility(self, facility: str) -> None:
        """Raises ``Denied`` if the ticket is for another one."""
        if self.facility not in (None, facility):
            raise Denied(403, "The ticket is for another facility.")


def redeem(handshake: Handshake, tenant: str) -> Ticket | None:
    """Use up the ticket of ``handshake`` and return its content; ``None`` if none was offered.

    Returns the same content again for a handshake whose ticket was redeemed earlier, as in a
    recheck. Blocks, so do not call it in the reactor thread. Raises ``Denied`` for an invalid
    ticket, and for one that is valid only for another facility. A ticket of another tenant is
    invalid.
    """
    if handshake.redeemed:
        return _for_facility(read_ticket(handshake.redeemed), handshake)
    offered = _offered(handshake)
    if not offered:
        return None
    if handshake.credential:
        pass  # it came in a message, which nothing repeats
    elif handshake.events:
        if len(offered) > 1:
            raise Denied(400, "Offer one ticket.")
    elif offered != [*handshake.subprotocols[1:2]]:
        # The response repeats the first subprotocol, and must not show a credential.
        raise Denied(
            400, "Offer the ticket as the second subprotocol, after a name such as ws4redis."
        )
    key = _key(offered[0], tenant)
    text = bridge.redis().take(key)
    if text is None:
        if handshake.credential:  # the client should ask for another one
            raise TokenExpired("ticket", "is invalid, was used already or has expired")
        raise Denied(403, "The ticket is invalid, was used already or has expired.")
    return _for_facility(read_ticket(text), handshake)


def _for_facility(ticket: Ticket, handshake: Handshake) -> Ticket:
    if handshake.names_facility:
        ticket.check_facility(handshake.facility)
    return ticket


def will_ask_redis(handshake: Handshake) -> bool:
    """Whether ``redeem`` has to use up a ticket."""
    return not handshake.redeemed and bool(_offered(handshake))


def shows_token(handshake: Handshake) -> bool:
    """Whether the client's credential is a token, and not a ticket."""
    return bool(handshake.credential) and not handshake.credential.startswith(TICKET_PREFIX)


def _offered(handshake: Handshake) -> list[str]:
    """The tickets in the request. An EventSource can send one only in its URL. A credential alone
    decides.
    """
    words: Sequence[str] = handshake.subprotocols
    if handshake.credential:
        words = [handshake.credential]
    elif handshake.events:
        words = parse_qs(handshake.query).get("ticket", [])
    return [word for word in words if word.startswith(TICKET_PREFIX)]


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


def _key(ticket: str, tenant: str) -> bytes:
    return ticket_key(
        django_settings.get_namespace(tenant), hashlib.sha256(ticket.encode("latin-1")).hexdigest()
    )


def _new_ticket(
    request: Any, facility: str | None, rights: Collection[str] | None, seconds: int
) -> tuple[str, bytes, str]:
    """A ticket, and the key and text of its content. May query the database."""
    text = _serialize(request, facility, rights, seconds)
    ticket = TICKET_PREFIX + secrets.token_urlsafe(32)
    return ticket, _key(ticket, django_settings.tenant_of(request)), text


def _serialize(
    request: Any, facility: str | None, rights: Collection[str] | None, seconds: int
) -> str:
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
        raise ValueError(f"seconds={seconds!r} is not a whole number of seconds, at least 1.")
    if facility is not None:
        facility = facility_text(facility)
        check_facility(facility, ())
    session, user = _session_or_user(request)
    return json.dumps(
        {
            "user_id": user_id_of(request.user),
            "session": session,
            "user": user,
            "facility": facility,
            "rights": None if rights is None else _check_rights(rights),
        }
    )


def _check_rights(rights: Collection[str]) -> list[str]:
    if isinstance(rights, str | bytes):
        raise TypeError(f"rights={rights!r} is not a list of rights. Write rights=[{rights!r}].")
    known = known_rights(django_settings.get_callable("WS4REDIS_SUBSCRIBER"))
    for right in rights:
        if right not in known:
            raise ValueError(
                f"rights contains {right!r}, which is none of {', '.join(sorted(known))}. Did you "
                f"mean {nearest(str(right), known)}?"
            )
    return list(rights)


def _session_or_user(request: Any) -> tuple[str | None, dict[str, str]]:
    """The key of the request's session, or else the items that identify its user."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        raise PermissionDenied("Nobody is logged in. Log in first: a ticket is for a user.")
    session: Any = getattr(request, "session", None)
    session_key = session_key_of(session)
    if django_settings.get_callable("WS4REDIS_PROCESS_REQUEST") is not None:
        if session_key is None:
            raise PermissionDenied(
                "WS4REDIS_PROCESS_REQUEST finds the user by the session, and this request has no "
                "session that a ticket could stand for. Ask for the ticket with a session."
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
    """The first backend that finds the user. A backend does not find users who may not log in."""
    own = getattr(user, "backend", None)
    for path in [own] if own else settings.AUTHENTICATION_BACKENDS:
        if load_backend(path).get_user(user.pk) is not None:
            return str(path)
    raise PermissionDenied("No authentication backend finds the user: is the account active?")
