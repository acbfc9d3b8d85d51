"""What is remembered of each websocket's admission, and who of them a revocation is about."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from ws4redis_tx.core.admission import ANONYMOUS, Identity
from ws4redis_tx.revocation.index import Index
from ws4redis_tx.revocation.messages import Revocation, digest
from ws4redis_tx.revocation.packing import Packed


class AdmissionRecord:
    """What a recheck of one websocket needs; small, as there is one for each.

    ``asked`` are the rights that the authorizer was asked about, ``rights`` those it granted.
    ``packed`` is the handshake, or ``None`` where the authorizer's answer never changes;
    ``expiry`` the timer of the session's end, if there is one.
    """

    __slots__ = ("asked", "expiry", "facility", "identity", "packed", "rights")

    def __init__(
        self,
        identity: Identity,
        rights: Iterable[str],
        asked: Iterable[str],
        facility: str,
        packed: Packed | None,
    ) -> None:
        self.identity = _compact(identity)
        self.rights = tuple(map(sys.intern, rights))
        self.asked = tuple(map(sys.intern, asked))
        if self.asked == self.rights:
            self.asked = self.rights
        self.facility = facility
        self.packed = packed
        self.expiry: Any = None


class SessionIndex:
    """Finds websockets by what they were admitted with, which is their ``admitted``.

    By user and session, which logging out and saving users ask for, at once; by anything else in a
    look at all ``websockets``.
    """

    def __init__(self, websockets: Callable[[], Iterable[Any]]) -> None:
        self._websockets = websockets
        self._by_user: Index[str, Any] = Index()
        self._by_session: Index[bytes, Any] = Index()
        self.size = 0

    def add(self, websocket: Any, admitted: AdmissionRecord) -> None:
        websocket.admitted = admitted
        self.size += 1
        self._by_user.add(admitted.identity.user_id, websocket)
        self._by_session.add(_session(admitted.identity), websocket)

    def discard(self, websocket: Any) -> None:
        admitted, websocket.admitted = websocket.admitted, None
        self.size -= 1
        self._by_user.discard(admitted.identity.user_id, websocket)
        self._by_session.discard(_session(admitted.identity), websocket)

    def update(self, websocket: Any, identity: Identity) -> None:
        """It turned out that its visitor is more than was known at its opening."""
        admitted = websocket.admitted
        self.discard(websocket)
        admitted.identity = _compact(identity)
        self.add(websocket, admitted)

    def all(self) -> list[Any]:
        return [each for each in self._websockets() if each.admitted is not None]

    def concerned(self, revocation: Revocation) -> list[Any]:
        """Also those whose handshake is under way."""
        if revocation.kind == "user":
            found = [each for value in revocation.values for each in self._by_user.get(value)]
        elif revocation.kind == "session":
            keys = map(_key, revocation.values)
            found = [each for key in keys for each in self._by_session.get(key)]
        else:
            found = self.all()
        return [
            each
            for each in found
            if revocation.concerns(each.admitted.identity, each.admitted.facility)
        ]


def _session(identity: Identity) -> bytes | None:
    return None if identity.session_key is None else _key(digest(identity.session_key))


def _key(session_digest: str) -> bytes:
    """A digest in half the memory; what is none finds nobody."""
    try:
        return bytes.fromhex(session_digest)
    except ValueError:
        return b""


def _compact(identity: Identity) -> Identity:
    """The same, its groups' names shared with all who have them, and nobody with everybody."""
    if identity == ANONYMOUS:
        return ANONYMOUS
    groups = tuple(sys.intern(str(group)) for group in identity.groups)
    return Identity(identity.session_key, identity.username, groups, identity.user_id)
