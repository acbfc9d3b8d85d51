"""Push messages from Django to browsers over websockets, served by Twisted.

Importing this package imports nothing else: no reactor, no Redis client, no Django.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def disconnect(
    *,
    user: Any = None,
    session: Any = None,
    group: Any = None,
    facility: str | None = None,
    tenant: str | None = None,
) -> int:
    """Close, with 1008, the websockets of a user, a session or a group, or on a facility.

    Give exactly one of them: a user object or a username, a session object or its key, a group
    object or its name, or a facility. A user object also finds users who were renamed after they
    connected. A client may reconnect if it still has the rights, so remove these first. Within a
    transaction, call this from ``transaction.on_commit``; otherwise the client may be back before
    the change is committed.

    With ``WS4REDIS_TENANT``, ``tenant`` says whose websockets these are.

    Returns how many server processes were told. Raises ``BrokerUnavailable`` when the call to Redis
    fails, and ``TypeError`` unless exactly one valid argument is given, with a tenant where there
    are tenants. Blocks, so do not call it on an event loop.
    """
    from ws4redis_tx.django.revoking import publish

    return publish(user=user, session=session, group=group, facility=facility, tenant=tenant)


async def adisconnect(
    *,
    user: Any = None,
    session: Any = None,
    group: Any = None,
    facility: str | None = None,
    tenant: str | None = None,
) -> int:
    """``disconnect`` for async code: does not block the event loop."""
    from ws4redis_tx.django.revoking import apublish

    return await apublish(user=user, session=session, group=group, facility=facility, tenant=tenant)
