"""How a client's subscriptions catch up after an outage of Redis, or end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import inlineCallbacks

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.positions import Position
from ws4redis_tx.protocols.centrifuge.subscription import Subscription

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection


def fall_back(connection: Connection) -> None:
    """The connection to Redis is lost, and the feed has all that came over it."""
    since = connection.broker.position
    fallen = [each for each in connection.subscriptions.values() if each.fall_back()]
    if fallen and since is not None:
        caught_up: Any = _catch_up(connection, fallen, since)
        failed = connection.session.fail
        caught_up.addErrback(failed, "Catching up after an outage of Redis failed")


@inlineCallbacks
def _catch_up(connection: Connection, fallen: list[Subscription], since: Position) -> Any:
    channels = [each.channel for each in fallen]
    while not connection.session.ended:
        yield connection.broker.when_available()
        try:
            missed = yield connection.broker.missed(channels, since)
        except BrokerUnavailable:
            yield connection.protocol.later()
            continue
        for each in fallen:
            each.catch_up(missed)
        return
