"""The rights of a client on each facility, as the authorizer granted them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, inlineCallbacks

from ws4redis_tx.core.admission import ANONYMOUS, Identity
from ws4redis_tx.core.errors import BrokerUnavailable, Denied, is_permission_denied
from ws4redis_tx.core.names import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS
from ws4redis_tx.protocols.centrifuge.errors import (
    ALREADY_SUBSCRIBED,
    DENIED,
    LIMIT_EXCEEDED,
    SERVER_UNSUBSCRIBE,
    TOO_MANY,
    CommandError,
)
from ws4redis_tx.protocols.centrifuge.names import Name
from ws4redis_tx.protocols.centrifuge.wire.schema import Values

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection

MOST_CHANNELS = 128
"""Of one connection."""

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
        self.rights: Collection[str] = ()

    @property
    def ended(self) -> bool:
        return self.connection.session.ended

    def revoke(self, code: int = 1008) -> None:
        """The visitor has lost something on the facility."""
        connection = self.connection
        connection.session.withdraw(self)
        if connection.grants.get(self.facility) is self:
            del connection.grants[self.facility]
            for each in connection.without_token(self.facility):
                connection.end(each, SERVER_UNSUBSCRIBE)

    def close(self, code: int, reason: str) -> None:
        self.connection.session.close(code, reason)

    def check(self, name: Name, right: str) -> None:
        """Raises ``CommandError`` unless this grants it."""
        if right not in self.rights:
            raise CommandError(DENIED)
        if name.audience == "group" and name.group not in self.identity.groups:
            raise CommandError(DENIED)


def ask_for(connection: Connection, name: Name, request: Values) -> Deferred[Any] | None:
    """Check whether the client may subscribe: ``None`` if that is known. Raises or fails with
    ``CommandError``.
    """
    if name.text in connection.subscriptions:
        raise CommandError(ALREADY_SUBSCRIBED)
    if len(connection.subscriptions) >= MOST_CHANNELS:
        raise CommandError(LIMIT_EXCEEDED)
    if request.get("token"):
        return None
    return need(connection, name, "subscribe")


def need(connection: Connection, name: Name, action: str) -> Deferred[Any] | None:
    """Fire if the client may ``subscribe`` or ``publish`` there; ``None``: that is known. Asks the
    authorizer when a right is first needed. Raises or fails with ``CommandError``.
    """
    right = f"{action}-{name.audience}"
    grant = connection.grants.get(name.facility)
    if grant is not None and right in grant.rights:
        grant.check(name, right)
        return None
    wanted = {right, *(connection.rights_ahead(name) if action == "subscribe" else ())}
    asked: Deferred[Any] = _ask(connection, name, right, wanted)
    return asked


@inlineCallbacks
def _ask(connection: Connection, name: Name, right: str, wanted: set[str]) -> Any:
    known = connection.grants.get(name.facility)
    had = set(known.rights) if known is not None else set()
    try:
        grant = yield _authorize(connection, name.facility, wanted | had)
    except CommandError:
        if len(wanted) == 1:
            raise
        grant = yield _authorize(connection, name.facility, {right} | had)  # the others may not be
    if known is not None:
        connection.session.withdraw(known)
        connection.grants.pop(name.facility, None)  # it may have been revoked meanwhile
    connection.grants[name.facility] = grant
    if len(connection.grants) > MOST_GRANTS:
        _forget_unused(connection)
    grant.check(name, right)


def _authorize(connection: Connection, facility: str, wanted: Collection[str]) -> Deferred[Grant]:
    session = connection.session
    asked = tuple([each for each in SUBSCRIBE_RIGHTS + PUBLISH_RIGHTS if each in wanted])
    handshake = replace(
        connection.handshake,
        path=connection.config.websocket_url + quote(facility),
        query="&".join(asked),
        flags=asked,
    )
    grant = Grant(connection, facility)

    def granted(admission: Any) -> Grant:
        grant.identity, grant.rights = admission.identity, admission.rights
        return grant

    answer: Deferred[Any] = session.authorize(handshake, asked, grant)
    return answer.addCallbacks(granted, as_command_error)


def as_command_error(failure: Any) -> Any:
    """The error for a client."""
    error = failure.value
    if isinstance(error, (Denied, BrokerUnavailable)):
        status = error.status if isinstance(error, Denied) else 503
        raise CommandError(TOO_MANY if status >= 500 else DENIED) from None
    if is_permission_denied(error):
        raise CommandError(DENIED) from None
    return failure


def _forget_unused(connection: Connection) -> None:
    used = {each.name.facility for each in connection.subscriptions.values()}
    for facility, grant in list(connection.grants.items()):
        if facility not in used and len(connection.grants) > MOST_GRANTS:
            connection.session.withdraw(grant)
            del connection.grants[facility]
