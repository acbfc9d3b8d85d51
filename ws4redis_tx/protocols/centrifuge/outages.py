"""Messages of a channel with a history that a client has missed: its subscription catches up after
an outage of Redis, or the client connects anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import inlineCallbacks

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.positions import Position
from ws4redis_tx.delivery.queues import Entry
from ws4redis_tx.protocols.centrifuge.errors import INSUFFICIENT_STATE
from ws4redis_tx.protocols.centrifuge.subscription import Subscription

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection


class Drops:
    """An ``IHoles``: a slow reader's messages are dropped to make room. A client that counts on a
    history connects anew and gets all of them.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def note(self, entry: Entry) -> None:
        connection = self._connection
        for each in connection.subscriptions.values():
            if each.channel == entry[0] and each.history is not None:
                connection.feed.close()
                connection.disconnect(INSUFFICIENT_STATE)
                return

    def take(self, entry: Entry | None) -> bytes:
        return b""


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
