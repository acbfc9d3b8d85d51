"""The rights of a client on each facility, as the authorizer granted them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import MOST_TOGETHER, Asked
from ws4redis_tx.core.errors import BrokerUnavailable, Denied, is_permission_denied
from ws4redis_tx.core.names import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS
from ws4redis_tx.protocols.centrifuge.errors import (
    ALREADY_SUBSCRIBED,
    DENIED,
    LIMIT_EXCEEDED,
    TOO_MANY,
    CommandError,
    Error,
)
from ws4redis_tx.protocols.centrifuge.names import Name
from ws4redis_tx.protocols.centrifuge.wire.schema import Values

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection

MOST_CHANNELS = 128
"""Of one connection."""

MOST_GRANTS = 256
"""Facilities whose rights one connection remembers. Unused ones are forgotten first."""

_RIGHTS = SUBSCRIBE_RIGHTS + PUBLISH_RIGHTS


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
    grant = connection.session.grants.get(name.facility)
    if grant is not None and right in grant.rights:
        _check(grant, name, right)
        return None
    refused = connection.refused.get((name.facility, right))
    if refused is not None:
        raise CommandError(refused)
    return _ask(connection, name, right, ahead=action == "subscribe")


def _check(grant: Any, name: Name, right: str) -> None:
    """Raises ``CommandError`` unless it grants the right."""
    if right not in grant.rights:
        raise CommandError(DENIED)
    if name.audience == "group" and name.group not in grant.identity.groups:
        raise CommandError(DENIED)


def _ask(connection: Connection, name: Name, right: str, *, ahead: bool) -> Deferred[None]:
    wanted = {name.facility: {right}}
    if ahead and not connection.asks_alone:
        _look_ahead(connection, wanted)
    outcomes = _authorize(connection, wanted)
    if len(wanted) > 1:
        outcomes.addErrback(_ask_without_the_others, connection, name, right)
    if wanted[name.facility] != {right}:
        outcomes.addCallback(_ask_alone, connection, name, right)
    return outcomes.addCallback(_conclude, name, right)


def _ask_without_the_others(
    failure: Failure, connection: Connection, name: Name, right: str
) -> Failure | Deferred[Sequence[Any]]:
    """All of them may have taken too long together. Those of the frame ask one by one now."""
    error = failure.value
    if not isinstance(error, CommandError) or error.error != TOO_MANY:
        return failure
    connection.asks_alone = True
    return _authorize(connection, {name.facility: {right}})


def _ask_alone(
    outcomes: Sequence[Any], connection: Connection, name: Name, right: str
) -> Sequence[Any] | Deferred[Sequence[Any]]:
    """Others that are wanted on the same facility may not be granted."""
    if isinstance(outcomes[0], Error):
        return _authorize(connection, {name.facility: {right}})
    return outcomes


def _conclude(outcomes: Sequence[Any], name: Name, right: str) -> None:
    if isinstance(outcomes[0], Error):
        raise CommandError(outcomes[0])
    _check(outcomes[0], name, right)


def _look_ahead(connection: Connection, wanted: dict[str, set[str]]) -> None:
    """Add what the commands need that are waiting, so that the authorizer is asked once."""
    most = min(MOST_TOGETHER, MOST_CHANNELS - len(connection.subscriptions))
    for request in connection.waiting_subscribes():
        if request.get("token"):
            break  # it may be refused, and those behind it are asked about in their turn
        try:
            name = connection.protocol.known_name(connection, request.get("channel", ""))
        except CommandError:
            continue
        if name is None:
            continue
        right, grant = f"subscribe-{name.audience}", connection.session.grants.get(name.facility)
        if grant is not None and right in grant.rights:
            continue
        if name.facility in wanted or len(wanted) < most:
            wanted.setdefault(name.facility, set()).add(right)


def _authorize(connection: Connection, wanted: Mapping[str, set[str]]) -> Deferred[Any]:
    """Fire with a grant on each facility, or an ``Error`` in its place."""
    session, asked = connection.session, []
    for facility, rights in wanted.items():
        had = session.grants.get(facility)
        both = rights if had is None else rights.union(had.rights)
        asked.append(Asked(facility, tuple([each for each in _RIGHTS if each in both])))
    handshake = connection.handshake
    if handshake.credential:  # it was good when the connection began, and has an end of its own
        handshake = replace(handshake, recheck=True)
    answer = session.authorize_facilities(handshake, asked, connection.known_as)
    return answer.addCallbacks(_take, as_command_error, callbackArgs=(connection, wanted))


def _take(
    outcomes: Sequence[Any], connection: Connection, wanted: Mapping[str, set[str]]
) -> list[Any]:
    taken = []
    for (facility, rights), outcome in zip(wanted.items(), outcomes, strict=True):
        refused: Collection[str] = ()
        if isinstance(outcome, Exception):
            outcome = _error_for(connection, outcome)
            if len(rights) == 1:  # else it is not known which right was refused
                refused = rights
        elif not rights.issubset(outcome.rights):
            refused = rights.difference(outcome.rights)
        for right in refused:
            error = outcome if isinstance(outcome, Error) else DENIED
            connection.refused[facility, right] = error
        taken.append(outcome)
    if len(connection.session.grants) > MOST_GRANTS:
        _forget_unused(connection, wanted)
    return taken


def _error_for(connection: Connection, raised: Exception) -> Error:
    """The error for all commands that need what was refused. Logs a failure, once."""
    try:
        failure = as_command_error(Failure(raised))
    except CommandError as error:
        return error.error
    return connection.error_for("subscribe", failure)


def as_command_error(failure: Any) -> Any:
    """The error for a client."""
    error = failure.value
    if isinstance(error, (Denied, BrokerUnavailable)):
        status = error.status if isinstance(error, Denied) else 503
        raise CommandError(TOO_MANY if status >= 500 else DENIED) from None
    if is_permission_denied(error):
        raise CommandError(DENIED) from None
    return failure


def _forget_unused(connection: Connection, wanted: Collection[str]) -> None:
    """The oldest first, and none that was just ``wanted``."""
    used = {each.name.facility for each in connection.subscriptions.values()}.union(wanted)
    grants = connection.session.grants
    for facility in list(grants):
        if facility not in used and len(grants) > MOST_GRANTS:
            del grants[facility]
