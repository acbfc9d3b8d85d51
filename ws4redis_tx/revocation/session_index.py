"""The record of each session's admission, and the index that finds sessions by it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ws4redis_tx.core.admission import ANONYMOUS, Identity
from ws4redis_tx.revocation.index import Index
from ws4redis_tx.revocation.messages import Revocation, digest
from ws4redis_tx.revocation.packing import Packed
from ws4redis_tx.revocation.void_tokens import Voiding, VoidTokens, digests_of


class IRevocable(Protocol):
    """A session as this room sees it: a client that was admitted, also while its opening handshake
    is under way.
    """

    def __hash__(self) -> int:
        """By identity."""

    admitted: AdmissionRecord | None
    """Ours: ``SessionIndex`` sets it. ``None`` initially."""

    part: bool
    """Whether it is a part of a session, which is none of the server's ``sessions``."""

    @property
    def ended(self) -> bool:
        """Whether the client is gone, or was told to go."""

    def revoke(self, code: int = 1008) -> object:
        """End it: the visitor may not have this any more."""

    def close(self, code: int, reason: str) -> object:
        """Begin the close handshake."""

    @property
    def grants(self) -> Mapping[str, IGrant]:
        """What it was granted on each of several facilities, besides its admission."""


class IGrant(Protocol):
    """A session's rights on one of several facilities."""

    facility: str
    asked: tuple[str, ...]
    rights: tuple[str, ...]
    identity: Identity

    def revoke(self, code: int = 1008) -> object:
        """Take it away: the visitor may not have this any more."""


NO_GRANTS: dict[str, Any] = {}
"""Those of a session with one facility. Never changed."""


class AdmissionRecord:
    """All that a recheck of one session needs. Small, as each session has one.

    ``asked`` are the rights that the authorizer was asked about, ``rights`` those it granted.
    ``packed`` is the handshake, or ``None`` where the authorizer's answer never changes;
    ``expiry`` the timer of the visitor's session's end, if there is one; ``issued`` the time at
    which the visitor's token was, if they showed one.
    """

    __slots__ = ("asked", "expiry", "facility", "identity", "issued", "packed", "rights")

    def __init__(
        self,
        identity: Identity,
        rights: Iterable[str],
        asked: Iterable[str],
        facility: str,
        packed: Packed | None,
        issued: float | None = None,
    ) -> None:
        self.identity = _compact(identity)
        self.rights = tuple(map(sys.intern, rights))
        self.asked = tuple(map(sys.intern, asked))
        if self.asked == self.rights:
            self.asked = self.rights
        self.facility = facility
        self.packed = packed
        self.expiry: Any = None
        self.issued = issued


class SessionIndex:
    """Finds sessions by their admission records.

    Users and session keys, which logging out and saving users ask for, are found at once; anything
    else in a look at all ``sessions``.
    """

    def __init__(self, sessions: Callable[[], Iterable[IRevocable]]) -> None:
        self._sessions = sessions
        self._by_user: Index[str, IRevocable] = Index()
        self._by_session_key: Index[bytes, IRevocable] = Index()
        # Those who showed a token, by all that can make it void.
        self._by_token: Index[bytes, IRevocable] = Index()
        self._parts: set[IRevocable] = set()
        self.size = 0

    def add(self, session: IRevocable, admitted: AdmissionRecord) -> None:
        session.admitted = admitted
        self.size += 1
        if session.part:
            self._parts.add(session)
        self._by_user.add(admitted.identity.user_id, session)
        self._by_session_key.add(_session_key(admitted.identity), session)
        if admitted.issued is not None:
            for digest in digests_of(admitted.identity):
                self._by_token.add(_key(digest), session)

    def discard(self, session: IRevocable) -> AdmissionRecord | None:
        """Return its record, if it had one."""
        admitted, session.admitted = session.admitted, None
        if admitted is not None:
            self.size -= 1
            self._parts.discard(session)
            self._by_user.discard(admitted.identity.user_id, session)
            self._by_session_key.discard(_session_key(admitted.identity), session)
            if admitted.issued is not None:
                for digest in digests_of(admitted.identity):
                    self._by_token.discard(_key(digest), session)
        return admitted

    def update(self, session: IRevocable, identity: Identity) -> None:
        """Its visitor turned out to be more than was known at its opening."""
        admitted = self.discard(session)
        if admitted is not None:
            admitted.identity = _compact(identity)
            self.add(session, admitted)

    def all(self) -> list[IRevocable]:
        sessions = [each for each in self._sessions() if each.admitted is not None]
        return [*sessions, *self._parts]

    def with_tokens(self, voiding: Voiding) -> list[IRevocable]:
        """Those whose tokens have become void, also those whose handshake is under way."""
        found = {each for digest in voiding.digests for each in self._by_token.get(_key(digest))}
        return [
            each
            for each in found
            if each.admitted is not None
            and each.admitted.issued is not None
            and each.admitted.issued < voiding.before
        ]

    def covered_by(self, void: VoidTokens) -> list[IRevocable]:
        """Those whose tokens are void, by a look at all."""
        return [
            each
            for each in self.all()
            if each.admitted is not None
            and each.admitted.issued is not None
            and void.covers(each.admitted.identity, each.admitted.issued)
        ]

    def concerned(self, revocation: Revocation) -> list[IRevocable | IGrant]:
        """The sessions, also those whose handshake is under way; and of a session that keeps its
        admission, the grants.
        """
        return [lost for each in self._found(revocation) for lost in _concerned(each, revocation)]

    def sessions_concerned(self, revocation: Revocation) -> list[IRevocable]:
        """Those that have something which it concerns."""
        return [each for each in self._found(revocation) if _concerned(each, revocation)]

    def _found(self, revocation: Revocation) -> list[IRevocable]:
        """Those that it may concern."""
        if revocation.kind == "user":
            return [each for value in revocation.values for each in self._by_user.get(value)]
        if revocation.kind == "session":
            keys = map(_key, revocation.values)
            return [each for key in keys for each in self._by_session_key.get(key)]
        return self.all()


def _concerned(session: IRevocable, revocation: Revocation) -> list[IRevocable | IGrant]:
    """What it takes away of a session."""
    admitted = session.admitted
    if admitted is None:
        return []
    if revocation.concerns(admitted.identity, admitted.facility):
        return [session]
    grants = session.grants.values()
    return [each for each in grants if revocation.concerns(each.identity, each.facility)]


def _session_key(identity: Identity) -> bytes | None:
    key = identity.session_key
    return None if key is None else _key(digest(key, identity.tenant))


def _key(session_digest: str) -> bytes:
    """A digest in half the memory. Text that is no digest finds nobody."""
    try:
        return bytes.fromhex(session_digest)
    except ValueError:
        return b""


def _compact(identity: Identity) -> Identity:
    """The same, but the names of groups are interned, and all anonymous visitors share one."""
    if type(identity) is not Identity:
        return identity  # an application's own, with fields of its own
    if identity == ANONYMOUS:
        return ANONYMOUS
    groups = tuple(sys.intern(str(group)) for group in identity.groups)
    tenant = sys.intern(identity.tenant[:])  # an exact str, where it is of a subclass
    return Identity(identity.session_key, identity.username, groups, identity.user_id, tenant)
