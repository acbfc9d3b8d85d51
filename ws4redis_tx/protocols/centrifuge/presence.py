"""The clients of this protocol are present where they subscribe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ws4redis_tx.protocols.centrifuge.wire.json import text

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection
    from ws4redis_tx.protocols.centrifuge.subscription import Subscription


def enter(subscription: Subscription) -> None:
    """Its client is present from now on. On a user's own channel it is online, and no more."""
    name, connection = subscription.name, subscription.connection
    occupancy = connection.protocol.occupancy
    if occupancy is None or name.audience == "session" or not occupancy.watches(name.facility):
        return
    info = describe_client(connection, subscription.info)
    occupancy.enter(subscription.channel, connection.client, info)


def leave(subscription: Subscription, *, lost: bool) -> None:
    """Does nothing for a client that is not present."""
    connection = subscription.connection
    if connection.protocol.occupancy is not None:
        connection.protocol.occupancy.leave(subscription.channel, connection.client, lost=lost)


def describe_client(connection: Connection, chan_info: bytes = b"") -> bytes:
    """What is said of a client, on one line."""
    user = text(connection.identity.username or "")
    parts = [b'"user":%b,"client":%b' % (user, text(connection.client))]
    if connection.info:
        parts.append(b'"conn_info":%b' % connection.info)
    if chan_info:
        parts.append(b'"chan_info":%b' % chan_info)
    return b"{%b}" % b",".join(parts)
