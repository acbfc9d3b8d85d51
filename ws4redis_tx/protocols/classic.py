"""The protocol of django-websocket-redis: the URL says everything.

A websocket has one facility, the part of the path after the prefix, and the rights that the query
names. The server checks the rights and subscribes to the channels before it accepts the client. It
then sends the persisted messages, and after them each message as it is published. A message is the
payload and nothing else. The client's own messages are published on the channels that it may
publish to.

A client's subscriber decides about its channels and messages. An application may replace it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.core.messages import RedisMessage
from ws4redis_tx.core.names import known_rights
from ws4redis_tx.protocols.client_quota import ClientQuota
from ws4redis_tx.protocols.interfaces import ISession
from ws4redis_tx.protocols.replay import Replay
from ws4redis_tx.protocols.subscriber_connection import SubscriberConnection


class ClassicProtocol:
    """An ``IProtocol``. A session's ``state`` is its ``SubscriberConnection``."""

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        make_subscriber: Callable[[SubscriberConnection], Any],
        reactor: Any,
    ) -> None:
        self.path = config.websocket_url
        self._config = config
        self._broker = broker
        self._make_subscriber = make_subscriber
        self._known_rights = known_rights(make_subscriber)
        self._reactor = reactor
        self._quota = ClientQuota(config.client_quota, reactor)

    def handshake(self, session: ISession) -> Deferred[Any]:
        rights = [flag for flag in session.handshake.flags if flag in self._known_rights]
        admitted = session.authorize(session.handshake, rights)
        return admitted.addCallback(self._subscribe, session)

    def _subscribe(self, admission: Admission, session: ISession) -> Deferred[Any]:
        """Fire when all of the client's channels are subscribed."""
        handshake = session.handshake
        connection = session.state = SubscriberConnection(
            self._config,
            self._broker,
            session.feed,
            self._quota,
            handshake.peer,
            echo="echo" in handshake.flags,
            tenant=admission.identity.tenant,
        )
        subscriber = connection.subscriber = self._make_subscriber(connection)
        return maybeDeferred(
            subscriber.set_pubsub_channels, admission.request, list(admission.rights)
        ).addCallback(connection.when_subscribed)

    def opened(self, session: ISession) -> Deferred[None]:
        connection: SubscriberConnection = session.state
        replay = connection.replay = Replay(
            connection, session, session.feed, self._broker, self._reactor
        )
        return replay.run().addBoth(connection.replayed)

    def received(self, session: ISession, payload: bytes) -> Any:
        return session.state.subscriber.publish_message(RedisMessage(payload))

    def closed(self, session: ISession) -> Deferred[Any] | None:
        connection: SubscriberConnection | None = session.state
        session.state = None
        if connection is None:
            return None
        if connection.replay is not None:
            connection.replay.cancel()
        released = None
        if connection.subscriber is not None:  # else it could not be made
            released = maybeDeferred(connection.subscriber.release)
        connection.release()
        return released
