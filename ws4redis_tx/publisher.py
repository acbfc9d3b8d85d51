"""Publishing from Django: from views, tasks, commands and threads.

Knows audiences and messages; how a waiting thread reaches Redis is ``bridge``'s. Importing this
module starts nothing and imports no reactor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from ws4redis_tx.config import django_settings
from ws4redis_tx.redis_store import SELF, Names, RedisMessage, RedisStore
from ws4redis_tx.threads import bridge

if TYPE_CHECKING:
    from ws4redis_tx.core.messages import PersistedMessage

__all__ = ["SELF", "RedisMessage", "RedisPublisher"]

_log = logging.getLogger(__name__)

_AUDIENCES = {
    "any": ("session", "user", "group", "broadcast"),
    "session": ("session",),
    "user": ("user",),
    "group": ("group",),
    "broadcast": ("broadcast",),
}


class RedisPublisher(RedisStore):
    """Publishes on one facility to an audience.

    :param request: whose user, session and groups ``SELF`` means.
    :param facility: the topic; the part of the websocket's URL after ``WEBSOCKET_URL``.
    :param broadcast: everybody who listens to the facility.
    :param groups: names of groups, or ``SELF``; likewise ``users`` and ``sessions``.

    May be used from any thread that runs no event loop and no reactor, and kept. Raises
    ``ValueError`` for a facility that the server would refuse, ``AudienceError`` (a ``TypeError``
    and ``ValueError``) for an audience that is no iterable of names. On an event loop, what
    ``SELF`` means is found out by ``apublish_message``.
    """

    def __init__(
        self,
        request: Any = None,
        facility: str | None = None,
        broadcast: bool = False,
        groups: Names = (),
        users: Names = (),
        sessions: Names = (),
        **audience: Any,
    ) -> None:
        super().__init__(_BlockingConnection())
        self._unresolved: Callable[[], None] | None = None
        names = [_repeatable(each) for each in (groups, users, sessions)]
        address = partial(self._address, request, facility, broadcast, *names, **audience)
        if request is not None and bridge.on_event_loop():
            # Who SELF is may have to be asked of the database, which an event loop must not do.
            self._address(None, facility, broadcast, *names, **audience)
            self._unresolved = address
        else:
            address()

    def publish_message(
        self,
        message: RedisMessage | bytes | str,
        expire: int | None = None,
        *,
        on_commit: bool | None = None,
    ) -> int:
        """Publish, and persist for ``expire`` seconds (default ``WS4REDIS_EXPIRE``; ``0``: not).

        Returns how many subscribers Redis counted, summed over the channels: server processes,
        not browsers. Blocks until Redis answered, ``WS4REDIS_TIMEOUT`` seconds at most. Raises
        ``BrokerUnavailable``, whose ``maybe_published`` tells whether the message may have been
        published all the same; it is never sent again.

        ``on_commit`` (default ``WS4REDIS_ON_COMMIT``): publish when the current transaction of the
        default database commits, and never if it rolls back. Then 0 is returned, and a failure is
        logged. Outside a transaction that is at once.
        """
        bridge.must_not_wait_on_event_loop()
        channels, payload, seconds = self._prepared(message, expire, django_settings.get_expire())
        if django_settings.get("WS4REDIS_ON_COMMIT") if on_commit is None else on_commit:
            from django.db import transaction

            transaction.on_commit(lambda: self._publish_and_log(channels, payload, seconds))
            return 0
        receivers: int = self._connection.publish(channels, payload, seconds)
        return receivers

    async def apublish_message(
        self, message: RedisMessage | bytes | str, expire: int | None = None
    ) -> int:
        """``publish_message``, at once, for async views: does not block the event loop."""
        if self._unresolved is not None:
            await sync_to_async(self._unresolved)()
            self._unresolved = None
        prepared = self._prepared(message, expire, django_settings.get_expire())
        receivers: int = await asyncio.to_thread(lambda: self._connection.publish(*prepared))
        return receivers

    def pipeline_publish_message(
        self,
        message: RedisMessage | bytes | str,
        expire: int | None = None,
        transaction: bool = True,
        *,
        on_commit: bool | None = None,
    ) -> int:
        """The same as ``publish_message``, which always takes one round trip here."""
        return self.publish_message(message, expire, on_commit=on_commit)

    def _publish_and_log(self, channels: Sequence[bytes], payload: bytes, expire: int) -> None:
        try:
            self._connection.publish(channels, payload, expire)
        except Exception:
            # The transaction is committed; its caller could not undo it.
            _log.exception("A message was not published after its transaction was committed")

    def fetch_message(
        self, request: Any, facility: str, audience: str = "any"
    ) -> PersistedMessage | None:
        """The first persisted message in the order session, user, each group, broadcast.

        ``audience`` narrows it to one of these. Raises ``ValueError`` for an unknown one.
        """
        if audience not in _AUDIENCES:
            raise ValueError(
                f"audience={audience!r} is none of {', '.join(map(repr, _AUDIENCES))}."
            )
        channels: list[str] = []
        for each in _AUDIENCES[audience]:
            wanted: dict[str, Any] = (
                {"broadcast": True} if each == "broadcast" else {f"{each}s": [SELF]}
            )
            channels += self._get_message_channels(request=request, facility=facility, **wanted)
        messages = self._connection.get_all(channels)
        return next((message for message in messages if message is not None), None)


def _repeatable(names: Any) -> Any:
    """An iterator would be used up by the first look at it."""
    return tuple(names) if isinstance(names, Iterator) else names


class _BlockingConnection:
    """Redis for a thread that waits."""

    def publish(self, channels: Sequence[bytes], message: bytes, expire: int) -> int:
        if not channels:
            return 0
        return bridge.redis().publish(channels, message, expire)

    def get(self, channel: str) -> PersistedMessage | None:
        return self.get_all([channel])[0]

    def get_all(self, channels: Sequence[str]) -> Sequence[PersistedMessage | None]:
        names = [channel.encode() for channel in channels]
        return bridge.redis().get(names) if names else []
