"""Push messages from Django to browsers over websockets, served by Twisted.

Importing this package imports nothing else: no reactor, no Redis client, no Django.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def disconnect(
    *, user: Any = None, session: Any = None, group: Any = None, facility: str | None = None
) -> int:
    """Close, with 1008, the websockets of a user, a session or a group, or on a facility.

    Exactly one of them: a user as an object, which finds it also if it was renamed, or by its
    username; a session as an object or by its key; a group as an object or by its name. A client
    may connect again, and is let in if it still may: take away first what it is not to have, and
    within a transaction leave this to ``transaction.on_commit``, as it is back before that ends.

    Returns how many server processes were told. Raises ``BrokerUnavailable`` when Redis could not
    be asked, and ``TypeError`` for anything else than one of these. Blocks, so not for event loops.
    """
    from ws4redis_tx.django.revoking import publish

    return publish(user=user, session=session, group=group, facility=facility)


async def adisconnect(
    *, user: Any = None, session: Any = None, group: Any = None, facility: str | None = None
) -> int:
    """``disconnect`` for async code: does not block the event loop."""
    import asyncio

    from ws4redis_tx.django.revoking import publish

    return await asyncio.to_thread(
        publish, user=user, session=session, group=group, facility=facility
    )
