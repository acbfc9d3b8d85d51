"""The subscriber of one websocket: subscribes, replays persisted messages and publishes.

Replace it with the setting ``WS4REDIS_SUBSCRIBER``. Its methods run in the reactor thread, where a
blocking call blocks every websocket; wrap such calls in ``twisted.internet.threads.deferToThread``.
Each method may return a Deferred.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.defer import Deferred

from ws4redis_tx.core.names import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS, Namespace
from ws4redis_tx.redis_store import SELF, RedisMessage, RedisStore
from ws4redis_tx.scheduling.deferreds import gather


class RedisSubscriber(RedisStore):
    """The default subscriber. Subclasses may override any of its methods, and extend the two lists
    of rights that a URL may request.
    """

    subscription_channels = list(SUBSCRIBE_RIGHTS)
    publish_channels = list(PUBLISH_RIGHTS)

    _subscription: Any = None

    def _namespace(self) -> Namespace:
        namespace: Namespace = self._connection.namespace
        return namespace

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "send_persited_messages" in vars(cls) and "send_persisted_messages" not in vars(cls):
            cls.send_persisted_messages = cls.send_persited_messages  # type: ignore[method-assign]

    def set_pubsub_channels(self, request: Any, channels: Collection[str]) -> Deferred[Any]:
        """Subscribe to the channels of the granted rights, which are in ``channels``.

        The handshake waits for the Deferred, so the client misses nothing that is published after
        it sees its websocket open. Raise ``ws4redis_tx.core.errors.Denied``, or Django's
        ``PermissionDenied``, to refuse.
        """
        facility = request.path_info[len(self._connection.config.websocket_url) :]
        self._publishers = set(
            self._get_message_channels(
                request=request, facility=facility, **_audiences("publish", channels)
            )
        )
        self._subscription = self._connection.pubsub()
        subscribed: Deferred[Any] = self._subscription.subscribe(
            *self._get_message_channels(
                request=request, facility=facility, **_audiences("subscribe", channels)
            )
        )
        return subscribed

    def send_persisted_messages(self, websocket: Any) -> Any:
        """Replay the persisted messages of the subscribed channels, before any live message.

        Called right after the websocket opens, and again if the connection to Redis is replaced in
        the meantime. ``websocket.send(message)`` queues the message. It skips a message from
        ``self._connection.get(channel)`` that has also arrived live.
        """

        def send(found: list[Any]) -> None:
            for persisted in found:
                if persisted is not None:
                    websocket.send(persisted)

        channels = self._subscription.channels
        return gather(self._connection.get(channel) for channel in channels).addCallback(send)

    # Resuming replaces it, unless a subclass has overridden it.
    send_persisted_messages.standard = True  # type: ignore[attr-defined]

    # Existing subclasses use this spelling. An override under either name works.
    send_persited_messages = send_persisted_messages

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Deferred[int]:
        """Publish a client's message on every channel that it may publish to, and persist it.

        Called for each message, in order. The next call does not wait for this call's Deferred, so
        an override that waits must keep the order itself. The server answers the client's close
        after the Deferred fires. If the Deferred fails, the client is closed with 1013, because its
        message may be lost.
        """
        if expire is None:
            expire = self._connection.config.expire
        published: Deferred[int] = self._connection.publish(self._publishers, message, expire)
        return published

    def parse_response(self) -> Deferred[bytes]:
        """Fire with the next message on a subscribed channel. The websocket still receives it."""
        arrived: Deferred[bytes] = self._subscription.parse_response()
        return arrived

    def get_file_descriptor(self) -> int | None:
        """The descriptor of the process's connection to Redis on which messages arrive."""
        descriptor: int | None = self._connection.fileno()
        return descriptor

    def release(self) -> None:
        """Leave all channels. Called exactly once, when the websocket has closed or was refused."""
        if self._subscription is not None:
            self._subscription.unsubscribe()


def _audiences(verb: str, rights: Collection[str]) -> dict[str, Any]:
    return {
        "broadcast": f"{verb}-broadcast" in rights,
        "groups": [SELF] if f"{verb}-group" in rights else [],
        "users": [SELF] if f"{verb}-user" in rights else [],
        "sessions": [SELF] if f"{verb}-session" in rights else [],
    }
