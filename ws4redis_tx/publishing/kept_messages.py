"""The part of a publisher that reads and deletes persisted and kept messages."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.names import check_facility, facility_text
from ws4redis_tx.redis_store import SELF, RedisStore
from ws4redis_tx.threads import bridge
from ws4redis_tx.threads.port import FORGET

if TYPE_CHECKING:
    from ws4redis_tx.core.messages import PersistedMessage

_AUDIENCES = {
    "any": ("session", "user", "group", "broadcast"),
    "session": ("session",),
    "user": ("user",),
    "group": ("group",),
    "broadcast": ("broadcast",),
}


class KeptMessages(RedisStore):
    """A part of ``RedisPublisher``."""

    _given_tenant: str | None = None
    _unresolved: Callable[[], None] | None = None

    def _resolve(self) -> None:
        """Do what had to wait on the event loop."""
        if self._unresolved is not None:
            self._unresolved()
            self._unresolved = None

    def forget(self) -> None:
        """Delete what is persisted and kept of the publisher's channels. A client that comes back
        is told of a gap if something is gone that it has not heard. Blocks and raises like
        ``publish_message``.
        """
        bridge.must_not_wait_on_event_loop(FORGET[0])
        self._resolve()
        channels, _, _ = self._prepared(b"", 0, 0)
        self._connection.forget(channels)

    async def aforget(self) -> None:
        """``forget`` for async views."""
        if self._unresolved is not None:
            await sync_to_async(self._resolve)()
        channels, _, _ = self._prepared(b"", 0, 0)
        await self._connection.aforget(channels)

    @staticmethod
    def position() -> str:
        """The current position: whoever resumes from it gets everything that is published after
        this call on a facility of ``WS4REDIS_HISTORY``. ``""`` if Redis runs no scripts for this
        user, and so keeps no history. Blocks and raises like ``publish_message``.
        """
        return bridge.redis().position()

    @staticmethod
    async def aposition() -> str:
        """``position`` for async views."""
        return await bridge.redis().aposition()

    def fetch_message(
        self, request: Any, facility: str, audience: str = "any"
    ) -> PersistedMessage | None:
        """Return the first persisted message, in the order session, user, each group, broadcast.

        ``audience`` limits the search to one of these. Without a request (``None``), only
        broadcasts are found. With ``WS4REDIS_TENANT`` these are messages of the publisher's
        ``tenant``, or else of the one whose site ``request`` is for. Raises ``ValueError`` for an
        unknown audience, or a facility that the server would refuse.
        """
        if audience not in _AUDIENCES:
            raise ValueError(
                f"audience={audience!r} is unknown. Use one of {', '.join(map(repr, _AUDIENCES))}."
            )
        facility = facility_text(facility)
        check_facility(facility, () if audience == "any" else _AUDIENCES[audience])
        bridge.must_not_wait_on_event_loop()
        self._resolve()
        if request is not None and self._given_tenant is None and django_settings.has_tenants():
            other = copy(self)
            other._tenant = other._given_tenant = django_settings.known_tenant(request)
            return other.fetch_message(request, facility, audience)
        channels: list[str] = []
        for each in _AUDIENCES[audience]:
            if each != "broadcast" and (request is None or ":" in facility):
                continue
            wanted: dict[str, Any] = (
                {"broadcast": True} if each == "broadcast" else {f"{each}s": [SELF]}
            )
            channels += self._get_message_channels(request=request, facility=facility, **wanted)
        messages = self._connection.get_all(channels)
        return next((message for message in messages if message is not None), None)
