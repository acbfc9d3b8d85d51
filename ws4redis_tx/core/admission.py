"""Who a connection belongs to, and what it may do.

The rights themselves are decided by whoever owns the visitors (Django, an application's own
authorizer); here stand the rules that hold for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import check_facility


@dataclass(frozen=True, slots=True)
class Identity:
    """A visitor. ``None``: no session, or not logged in.

    ``user_id`` is what stays the same when a user is renamed: the primary key, as a string.
    """

    session_key: str | None = None
    username: str | None = None
    groups: tuple[str, ...] = ()
    user_id: str | None = None

    def __repr__(self) -> str:
        # A session key is a credential.
        session = "…" if self.session_key else None
        return f"Identity(session_key={session}, username={self.username!r}, groups={self.groups})"


ANONYMOUS = Identity()


@dataclass(frozen=True, slots=True)
class Admission:
    """What an authorizer granted: the rights, to whom, and the request the subscriber gets.

    ``expires`` is when the visitor's session ends, in seconds since the epoch, as far as is known:
    then the authorizer is asked again.

    ``redeemed`` stands for a one-time credential: whenever the authorizer is asked about the same
    handshake again, the handshake has it as its ``redeemed``.

    ``fixed``: the answer to the same handshake never changes, so that it is never asked again.
    """

    identity: Identity
    rights: tuple[str, ...]
    request: object
    expires: float | None = None
    redeemed: str = field(default="", repr=False)
    fixed: bool = False


@dataclass(slots=True)
class PlainRequest:
    """The request of a visitor that nobody looked up: what a subscriber needs, and no more."""

    path_info: str
    ws4redis_identity: Identity


def default_policy(rights: Iterable[str]) -> tuple[str, ...]:
    """What may be had when nothing else was configured: all but publishing to others.

    Raises ``Denied`` (403) when that is asked for.
    """
    granted = tuple(rights)
    for right in granted:
        if right.startswith("publish-") and right not in ("publish-session", "publish-user"):
            raise Denied(
                403,
                "This may not be published to from a websocket.",
                detail=f"{right} was asked for, which reaches others; to grant it, set "
                "WS4REDIS_ALLOWED_CHANNELS (ws4redis_tx.policies.allow_all grants all)",
            )
    return granted


def check_admission(handshake: Handshake, admission: Admission) -> None:
    """Raise ``Denied`` when a granted right needs an identity that is not there, or a facility
    that could be mistaken for another's: there is never a channel shared by "nobody".

    Raises ``TypeError`` for what an authorizer gets wrong and nobody would notice.
    """
    _check_types(admission)
    audiences = {right.partition("-")[2] for right in admission.rights}
    if not admission.identity.username and audiences & {"user", "group"}:
        raise Denied(
            401,
            "Log in first.",
            headers=(("WWW-Authenticate", 'Cookie realm="websocket"'),),
            detail="a user or group right needs a logged-in user",
        )
    if not admission.identity.session_key and "session" in audiences:
        raise Denied(
            403,
            "There is no session.",
            detail="a session right needs a session that is stored on the server",
        )
    try:
        check_facility(handshake.facility, audiences)
    except ValueError as error:
        raise Denied(400, str(error)) from None


def _check_types(admission: Admission) -> None:
    groups, user_id = admission.identity.groups, admission.identity.user_id
    for name, value in (("groups", groups), ("rights", admission.rights)):
        if isinstance(value, str):  # each of its letters would be one
            raise TypeError(f"{name}={value!r} is not a tuple: write {name}=({value!r},).")
    if user_id is not None and not isinstance(user_id, str):  # no disconnect() would find it
        raise TypeError(f"user_id={user_id!r} is not a string: write user_id={str(user_id)!r}.")


def lost(then: Identity, rights: Iterable[str], now: Admission) -> str:
    """What a visitor who was let in as ``then``, with ``rights``, has lost by ``now``; ``""`` for
    nothing. To have gained something is no loss.
    """
    rights = set(rights)
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


class AnonymousAuthorizer:
    """The authorizer of a server that knows no visitors: broadcast, by the default policy."""

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Admission:
        request = PlainRequest(handshake.path_info, ANONYMOUS)
        return Admission(ANONYMOUS, default_policy(rights), request, fixed=True)
