"""The rights of a client on each facility, as the authorizer granted them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.internet.defer import inlineCallbacks

from ws4redis_tx.core.admission import ANONYMOUS, Identity
from ws4redis_tx.core.errors import BrokerUnavailable, Denied, is_permission_denied
from ws4redis_tx.core.names import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS
from ws4redis_tx.protocols.centrifuge.errors import DENIED, TOO_MANY, CommandError
from ws4redis_tx.protocols.centrifuge.names import Name

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection

MOST_GRANTS = 256
"""Facilities of which the rights are remembered, at least until the next recheck."""


class Grant:
    """An ``IRevocable``: what the authorizer granted on one facility."""

    __slots__ = ("admitted", "connection", "facility", "identity", "rights")

    part = True

    def __init__(self, connection: Connection, facility: str) -> None:
        self.admitted: Any = None
        self.connection = connection
        self.facility = facility
        self.identity: Identity = ANONYMOUS
        self.rights: frozenset[str] = frozenset()

    @property
    def ended(self) -> bool:
        return self.connection.session.ended

    def revoke(self) -> None:
        self.connection.rights.revoked(self)

    def close(self, code: int, reason: str) -> None:
        self.connection.session.close(code, reason)


class Rights:
    """What a connection may do. Asks for the rights on a facility when they are first needed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._grants: dict[str, Grant] = {}

    @inlineCallbacks
    def need(self, name: Name, action: str, ahead: Collection[str] = ()) -> Any:
        """Fire if the client may ``subscribe`` or ``publish`` there. ``ahead``: rights on the same
        facility that it will need next. Raises ``CommandError``.
        """
        right = f"{action}-{name.audience}"
        grant = self._grants.get(name.facility)
        if grant is None or right not in grant.rights:
            grant = yield self._ask(name.facility, right, ahead)
        if right not in grant.rights:
            raise CommandError(DENIED)
        if name.audience == "group" and name.group not in grant.identity.groups:
            raise CommandError(DENIED)

    @inlineCallbacks
    def _ask(self, facility: str, right: str, ahead: Collection[str]) -> Any:
        known = self._grants.get(facility)
        wanted = {right, *ahead} | (known.rights if known is not None else set())
        try:
            granted = yield self._authorize(facility, wanted)
        except CommandError:
            if len(wanted) == 1:
                raise
            # One of the others may have been refused.
            wanted = {right} | (known.rights if known is not None else set())
            granted = yield self._authorize(facility, wanted)
        if known is not None:
            self._connection.session.withdraw(known)
        self._grants.pop(facility, None)
        self._grants[facility] = granted
        self._forget_unused()
        return granted

    @inlineCallbacks
    def _authorize(self, facility: str, wanted: Collection[str]) -> Any:
        connection = self._connection
        config, session = connection.config, connection.session
        asked = [each for each in SUBSCRIBE_RIGHTS + PUBLISH_RIGHTS if each in wanted]
        handshake = replace(
            connection.handshake,
            path=config.websocket_url + quote(facility),
            query="&".join(asked),
            flags=tuple(asked),
        )
        grant = Grant(connection, facility)
        try:
            admission = yield session.authorize(handshake, asked, grant)
        except (Denied, BrokerUnavailable) as error:
            status = error.status if isinstance(error, Denied) else 503
            raise CommandError(TOO_MANY if status >= 500 else DENIED) from None
        except Exception as error:
            if is_permission_denied(error):
                raise CommandError(DENIED) from None
            raise
        grant.identity, grant.rights = admission.identity, frozenset(admission.rights)
        return grant

    def _forget_unused(self) -> None:
        if len(self._grants) <= MOST_GRANTS:
            return
        used = {each.name.facility for each in self._connection.subscriptions.values()}
        for facility, grant in list(self._grants.items()):
            if facility not in used and len(self._grants) > MOST_GRANTS:
                self._connection.session.withdraw(grant)
                del self._grants[facility]

    def revoked(self, grant: Grant) -> None:
        """The visitor has lost something on a facility."""
        self._connection.session.withdraw(grant)
        if self._grants.get(grant.facility) is grant:
            del self._grants[grant.facility]
            self._connection.lost(grant.facility)

    def withdraw(self) -> None:
        """The connection is gone."""
        for grant in self._grants.values():
            self._connection.session.withdraw(grant)
        self._grants.clear()
