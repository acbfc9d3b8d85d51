"""Publishing from Django: from views, tasks, commands and threads.

Knows audiences and messages. ``bridge`` knows how a waiting thread reaches Redis. Importing this
module starts nothing and imports no reactor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core import checks

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.messages import Published, payload_of
from ws4redis_tx.core.names import (
    channels_to_publish_on,
    check_tenant,
)
from ws4redis_tx.core.positions import NOT_KEPT, Kept
from ws4redis_tx.django.checks import check_settings
from ws4redis_tx.publishing.made_messages import MadeMessages
from ws4redis_tx.publishing.publish_signal import Announcement, schedule
from ws4redis_tx.publishing.transactions import when_committed
from ws4redis_tx.redis_store import (
    NO_BROADCAST,
    SELF,
    UNNAMED,
    Names,
    RedisMessage,
)
from ws4redis_tx.threads import bridge

if TYPE_CHECKING:
    from ws4redis_tx.core.messages import PersistedMessage

__all__ = ["SELF", "RedisMessage", "RedisPublisher"]

_log = logging.getLogger(__name__)

# An application that is not installed cannot register it, and one of its findings is just that.
checks.register(check_settings)


class RedisPublisher(MadeMessages):
    """Publishes on one facility to an audience.

    :param request: the request whose user, session and groups ``SELF`` stands for, and which
        templates get.
    :param facility: the topic; the part of the websocket's URL after ``WEBSOCKET_URL``. A whole
        number or a UUID counts as its text.
    :param broadcast: publish to everybody who listens to the facility.
    :param groups: names of groups, groups themselves, or ``SELF``; likewise ``users`` and
        ``sessions``. An audience that is empty, ``None`` or ``False`` is nobody.
    :param tenant: whose site it is, with ``WS4REDIS_TENANT``. The default is that of ``request``.

    A publisher is reusable. Any thread that runs no event loop and no reactor may use it. On an
    event loop, ``apublish_message`` resolves ``SELF`` and whoever else the database knows. Raises
    ``ValueError`` for a facility that the server would refuse, ``AudienceError`` (a ``TypeError``
    and a ``ValueError``) for an audience that is not an iterable of names and for ``SELF`` without
    a request, and ``TypeError`` for an argument that it does not take.
    """

    def __init__(
        self,
        request: Any = None,
        facility: str | None = None,
        broadcast: bool = NO_BROADCAST,
        groups: Names = UNNAMED,
        users: Names = UNNAMED,
        sessions: Names = UNNAMED,
        tenant: str | None = None,
        **audience: Any,
    ) -> None:
        super().__init__(_BlockingConnection())
        self._request = request
        self._tenant = self._given_tenant = None if tenant is None else check_tenant(tenant)
        names = [_repeatable(each) for each in (groups, users, sessions)]
        address = partial(self._address, request, facility, broadcast, *names, **audience)
        if bridge.on_event_loop():
            # Users and groups may have to be looked up, and the tenant may have to be asked
            # for, which would block the event loop. Mistakes are told at once all the same.
            known = [_names_alone(each, request) for each in names]
            asks = request is not None and tenant is None and django_settings.has_tenants()
            if asks:
                self._tenant = "unknown"
            self._address(request, facility, broadcast, *known, **audience)
            if asks:
                self._tenant, self._publishers = None, set()
            if asks or any(each is not named for each, named in zip(known, names, strict=True)):
                self._unresolved = partial(self._settle, request, address)
        else:
            self._settle(request, address)

    def _settle(self, request: Any, address: Callable[[], None]) -> None:
        """Name the channels, for the tenant whose site it is."""
        if self._tenant is None and request is not None:
            self._tenant = django_settings.known_tenant(request)
        address()

    def publish_message(
        self,
        message: RedisMessage | bytes | str,
        expire: int | None = None,
        *,
        on_commit: bool | None = None,
        using: str | None = None,
        idempotency_key: str = "",
    ) -> Published:
        """Publish, and persist for ``expire`` seconds (default ``WS4REDIS_EXPIRE``).

        With ``expire=0`` the message is not persisted. Returns the number of subscribers that Redis
        counted, summed over the channels; these are server processes, not browsers. On a facility
        of ``WS4REDIS_HISTORY`` its ``position`` is that of the message. Blocks until
        Redis answers, for at most ``WS4REDIS_TIMEOUT`` seconds. Raises ``BrokerUnavailable``, whose
        ``maybe_published`` says whether the message may have been published anyway. The message is
        never sent again.

        ``idempotency_key``: if a message was published with the same key to the same audience
        within ten minutes, publish nothing and return what was returned then. So a call whose
        message may have been published can be repeated safely.

        ``on_commit`` (default ``WS4REDIS_ON_COMMIT``): publish when the current transaction of
        ``using`` (default: the default database) commits, and not at all if it rolls back. The call
        then returns 0, and logs a failure instead of raising it. Outside a transaction it publishes
        at once. Raises ``ValueError`` for a ``using`` that is not in ``DATABASES``, or without
        ``on_commit``.
        """
        bridge.must_not_wait_on_event_loop()
        self._resolve()
        channels, payload, seconds = self._prepared(message, expire, django_settings.get_expire())
        kept = self._kept(idempotency_key)
        waits = django_settings.get("WS4REDIS_ON_COMMIT") if on_commit is None else on_commit
        if waits or using is not None:
            publish = partial(self._publish_and_log, channels, payload, seconds, kept)
            scheduled = partial(schedule, RedisPublisher, channels, payload, publish)
            when_committed(waits, using, scheduled)
            return Published(0)
        published: Published = self._connection.publish(channels, payload, seconds, kept)
        return published

    async def apublish_message(
        self,
        message: RedisMessage | bytes | str,
        expire: int | None = None,
        *,
        idempotency_key: str = "",
    ) -> Published:
        """``publish_message`` for async views: neither blocks the event loop nor holds a thread
        while it waits for Redis, and can be cancelled; the message may have been sent by then.
        Publishes at once, whatever ``WS4REDIS_ON_COMMIT`` says.
        """
        if self._unresolved is not None:
            await sync_to_async(self._resolve)()
        prepared = self._prepared(message, expire, django_settings.get_expire())
        kept = self._kept(idempotency_key)
        published: Published = await self._connection.apublish(*prepared, kept)
        return published

    def pipeline_publish_message(
        self,
        message: RedisMessage | bytes | str,
        expire: int | None = None,
        transaction: bool = True,
        *,
        on_commit: bool | None = None,
        using: str | None = None,
        idempotency_key: str = "",
    ) -> Published:
        """The same as ``publish_message``, which always takes a single round trip."""
        return self.publish_message(
            message, expire, on_commit=on_commit, using=using, idempotency_key=idempotency_key
        )

    def _kept(self, idempotency_key: str) -> Kept:
        history = django_settings.get_history(self._facility)
        if not isinstance(idempotency_key, str):
            raise TypeError(
                f"idempotency_key={idempotency_key!r} is not a string. Use a name of the event, "
                "such as f'order-{order.pk}-paid'."
            )
        return Kept(history, idempotency_key) if history or idempotency_key else NOT_KEPT

    def _publish_and_log(
        self, channels: Sequence[bytes], payload: bytes, expire: int, kept: Kept
    ) -> None:
        try:
            self._connection.publish(channels, payload, expire, kept)
        except Exception:
            # The transaction is already committed, so the caller could not undo it.
            _log.exception("A message was not published after its transaction was committed")


def _repeatable(names: Any) -> Any:
    """Copy an iterator, since the audience is resolved more than once."""
    return tuple(names) if isinstance(names, Iterator) else names


def _names_alone(names: Any, request: Any) -> Any:
    """``names`` itself if it holds nothing but names, or else what can be told without a query.

    Types decide, since ``isinstance`` would look a lazy user up.
    """
    kind = type(names)
    if issubclass(kind, list | tuple | set | frozenset):
        # SELF without a request is a mistake, which is told at once.
        known = [
            each for each in names
            if issubclass(type(each), str) or (each is SELF and request is None)
        ]  # fmt: skip
        return names if len(known) == len(names) else known
    return [] if issubclass(kind, Iterable) and not issubclass(kind, str | bytes) else names


class _BlockingConnection:
    """A connection to Redis whose calls block their thread. Old tests use it, too."""

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int | None = None,
        kept: Kept = NOT_KEPT,
    ) -> Published:
        names, payload = channels_to_publish_on(channels, expire), payload_of(message)
        with Announcement(RedisPublisher, names, payload) as announcement:
            if names:
                announcement.published = bridge.redis().publish(names, payload, expire or 0, kept)
        return announcement.published

    async def apublish(
        self, channels: Sequence[bytes], message: bytes, expire: int, kept: Kept
    ) -> Published:
        async with Announcement(RedisPublisher, channels, message) as announcement:
            if channels:
                redis = bridge.redis()
                announcement.published = await redis.apublish(channels, message, expire, kept)
        return announcement.published

    def forget(self, channels: Sequence[bytes]) -> None:
        if channels:
            bridge.redis().forget(channels)

    async def aforget(self, channels: Sequence[bytes]) -> None:
        if channels:
            await bridge.redis().aforget(channels)

    def get(self, channel: str) -> PersistedMessage | None:
        return self.get_all([channel])[0]

    def get_all(self, channels: Sequence[str]) -> Sequence[PersistedMessage | None]:
        names = [channel.encode() for channel in channels]
        return bridge.redis().get(names) if names else []
