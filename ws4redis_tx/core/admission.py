"""The owner of a connection, and its rights.

An authorizer (Django's, or an application's own) decides about the rights. This module has the
rules that apply to every authorizer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ws4redis_tx.core.errors import Denied, nearest
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import check_facility, check_tenant
from ws4redis_tx.core.origins import other_page

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

# Seconds since the epoch. An earlier time is a duration, a later one is in milliseconds.
_YEAR_2001, _YEAR_10000 = 1e9, 253_402_300_800

# Characters of a client's flag that its refusal repeats.
_LONGEST_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """A visitor. A field is ``None`` if there is no session, or no login.

    ``user_id`` is the primary key as a string: it stays the same when the user is renamed.
    ``tenant`` is the one whose site it is; ``""`` on a site without tenants.
    """

    session_key: str | None = None
    username: str | None = None
    groups: tuple[str, ...] = ()
    user_id: str | None = None
    tenant: str = ""

    def __repr__(self) -> str:
        # A session key is a credential.
        session = "…" if self.session_key else None
        tenant = f", tenant={self.tenant!r}" if self.tenant else ""
        return (
            f"Identity(session_key={session}, username={self.username!r}, groups={self.groups}"
            f"{tenant})"
        )


ANONYMOUS = Identity()


@dataclass(frozen=True, slots=True)
class Admission:
    """An authorizer's answer: the visitor, their rights, and the request for the subscriber; it may
    be ``None`` where there is no facility.

    ``expires`` is the end of the visitor's session in seconds since the epoch, ``None`` if it is
    unknown. The authorizer is asked again at that time.

    ``redeemed`` stands for a one-time credential. The handshake has it as its own ``redeemed``
    whenever the authorizer is asked about that handshake again.

    ``issued`` is when the credential was issued, in seconds since the epoch, if it is one that a
    later revocation makes void: a signed token.
    """

    identity: Identity
    rights: tuple[str, ...]
    request: object
    expires: float | None = None
    redeemed: str = field(default="", repr=False)
    issued: float | None = None


MOST_TOGETHER = 16
"""Facilities about which an authorizer is asked at once, and answers in the time of one."""


class Asked(NamedTuple):
    """One of several facilities, and the rights that a visitor asks for there."""

    facility: str
    rights: tuple[str, ...]


@dataclass(slots=True)
class PlainRequest:
    """The request of a visitor who was not looked up: it has only what a subscriber needs."""

    path_info: str
    ws4redis_identity: Identity


class IFacilitiesAuthorizer(Protocol):
    """An ``IAuthorizer`` that also answers together about the facilities of one connection. Any
    other is asked about each of them.
    """

    def authorize_facilities(
        self, handshake: Handshake, asked: Sequence[Asked], known: Admission | None = None
    ) -> Deferred[Sequence[Admission | Exception]] | Sequence[Admission | Exception]:
        """Answer for each, in order, as ``authorize`` does about ``handshake.on_facility(…)``; an
        exception stands for a failure. It fails if the visitor cannot be identified.

        :param known: its recent answer to this handshake: the visitor need not be looked up again.
        """


def check_flags(flags: Iterable[str], known: Collection[str]) -> None:
    """Raise ``Denied`` (400) if one of a URL's ``flags`` looks like a right, and is none of the
    ``known`` ones: a websocket that silently misses a right is hard to find.
    """
    for flag in flags:
        if flag.startswith(("subscribe", "publish")) and flag not in known:
            remedy = "There are no rights here."
            if known:
                meant, rights = nearest(flag, known), ", ".join(sorted(known))
                remedy = f"Did you mean {meant}? The rights are {rights}."
            raise Denied(400, f"{flag[:_LONGEST_SHOWN]!a} is not a right. {remedy}")


def default_policy(rights: Iterable[str]) -> tuple[str, ...]:
    """Grant all of ``rights``, as an unconfigured server does, except publishing to others.

    Raises ``Denied`` (403) for a right to publish to others.
    """
    granted = tuple(rights)
    for right in granted:
        if right.startswith("publish-") and right not in ("publish-session", "publish-user"):
            raise Denied(
                403,
                "A websocket may not publish to this audience.",
                detail=f"the client asked for {right}, which reaches other people; to grant it, "
                "set WS4REDIS_ALLOWED_CHANNELS (ws4redis_tx.policies.allow_all grants every right)",
            )
    return granted


def check_granted(rights: Collection[str], known: Collection[str]) -> None:
    """Raise ``ValueError`` if one of the granted ``rights`` is none of the ``known`` ones."""
    for right in rights:
        if right not in known and right != "echo":
            raise ValueError(
                f"{right!r} is not a right. Did you mean {nearest(right, known)}? Return a list of "
                f"rights from {', '.join(sorted(known))}."
            )


def check_admission(
    handshake: Handshake,
    admission: Admission,
    *,
    tenants: bool = False,
    facility: str | None = None,
) -> None:
    """Raise ``Denied`` if a granted right needs an identity that is missing, or if the facility is
    not valid for its audiences. Anonymous visitors must never share a user's or session's channel.

    Raises ``TypeError`` or ``ValueError`` for an authorizer's mistake that would otherwise go
    unnoticed, such as no tenant on a site with ``tenants``.

    :param facility: by default that of the handshake.
    """
    _check_types(admission)
    if tenants or admission.identity.tenant:
        check_tenant(admission.identity.tenant)
    audiences = {right.partition("-")[2] for right in admission.rights}
    if not admission.identity.username and audiences & {"user", "group"}:
        other = other_page(handshake)
        raise Denied(
            401,
            f"Log in first.{other}",
            headers=(("WWW-Authenticate", 'Cookie realm="websocket"'),),
            detail=f"a user or group right needs a logged-in user.{other}",
        )
    if not admission.identity.session_key and "session" in audiences:
        other = other_page(handshake)
        raise Denied(
            403,
            f"There is no session.{other}",
            detail=f"a session right needs a session that is stored on the server.{other}",
        )
    try:
        check_facility(handshake.facility if facility is None else facility, audiences)
    except ValueError as error:
        raise Denied(400, str(error)) from None


def _check_types(admission: object) -> None:
    if not isinstance(admission, Admission):
        raise TypeError(
            f"The authorizer answered a {type(admission).__name__}, not an Admission. Return "
            "Admission(identity, rights, request), or raise Denied to refuse."
        )
    identity = admission.identity
    if not isinstance(identity, Identity):
        raise TypeError(
            f"identity is a {type(identity).__name__}, not an Identity. Nobody is ANONYMOUS."
        )
    for field_name, names in (("groups", identity.groups), ("rights", admission.rights)):
        if isinstance(names, str):  # each letter would count as a name
            raise TypeError(
                f"{field_name}={names!r} is not a tuple: write {field_name}=({names!r},)."
            )
        if type(names) is not tuple and not isinstance(names, Collection):
            raise TypeError(f"{field_name}={names!r} is not a tuple of names.")
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"{field_name} holds {name!r}, which is not a name, a string.")
    user_id = identity.user_id
    if user_id is not None and not isinstance(user_id, str):  # disconnect() would miss it
        raise TypeError(f"user_id={user_id!r} is not a string: write user_id={str(user_id)!r}.")
    if admission.expires is not None:
        _check_time(admission.expires)


def _check_time(expires: object) -> None:
    """A time in another unit, or a duration, would make a session end at once or never."""
    problem = ""
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        problem = "is not a number of seconds since the epoch."
        if hasattr(expires, "timestamp"):
            problem += " Write its .timestamp()."
        raise TypeError(f"expires={expires!r} {problem}")
    if expires != expires:
        problem = "is not a time."
    elif expires < _YEAR_2001:
        problem = f"is before the year 2001. Write a time: time.time() + {expires!r}."
    elif _YEAR_10000 < expires < math.inf:
        problem = "is after the year 9999. Write seconds since the epoch, not milliseconds."
    if problem:
        raise ValueError(f"expires={expires!r} {problem}")


def is_same_visitor(one: Identity, other: Identity) -> bool:
    """Whether they are one, of the same session, whose groups may have changed."""
    return one is other or (
        (one.tenant, one.session_key, one.user_id, one.username)
        == (other.tenant, other.session_key, other.user_id, other.username)
    )


def lost(then: Identity, rights: Iterable[str], now: Admission) -> str:
    """Name what a visitor, admitted as ``then`` with ``rights``, has lost by ``now``; ``""`` for
    nothing. A gain is not a loss.
    """
    rights = set(rights)
    if now.identity.tenant != then.tenant:
        return "the tenant"
    for name in ("session_key", "user_id", "username"):
        before = getattr(then, name)
        if before is not None and getattr(now.identity, name) != before:
            return "the session" if name == "session_key" else "the user"
    if not rights.issubset(now.rights):
        return "a right"
    uses_groups = any(right.endswith("-group") for right in rights)
    if uses_groups and not set(then.groups).issubset(now.identity.groups):
        return "a group"
    return ""


def by_default_policy(known: Admission, asked: Iterable[Asked]) -> list[Admission | Exception]:
    """The default policy's answer for a known visitor on each facility."""
    return [_by_default_policy(known, rights) for _, rights in asked]


def _by_default_policy(known: Admission, rights: Sequence[str]) -> Admission | Exception:
    try:
        granted = default_policy(rights)
    except Denied as denied:
        return denied
    return Admission(known.identity, granted, known.request, known.expires, issued=known.issued)


class AnonymousAuthorizer:
    """The authorizer of a server that knows no visitors. It grants by the default policy."""

    fixed = True
    """Its answers never change, so that it is asked once for each websocket."""

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Admission:
        request = PlainRequest(handshake.path_info, ANONYMOUS)
        return Admission(ANONYMOUS, default_policy(rights), request)

    def authorize_facilities(
        self, handshake: Handshake, asked: Sequence[Asked], known: Admission | None = None
    ) -> list[Admission | Exception]:
        return by_default_policy(known or self.authorize(handshake, ()), asked)
