"""The protocol of django-websocket-redis: the URL says everything.

A websocket has one facility, the part of the path after the prefix, and the rights that the query
names. The server checks the rights and subscribes to the channels before it accepts the client. It
then sends the persisted messages, and after them each message as it is published. A message is the
payload and nothing else. The client's own messages are published on the channels that it may
publish to.

A client's subscriber decides about its channels and messages. An application may replace it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, check_flags, check_granted
from ws4redis_tx.core.errors import shown
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.core.messages import RedisMessage
from ws4redis_tx.core.names import channel_name, known_rights
from ws4redis_tx.protocols.client_quota import ClientQuota
from ws4redis_tx.protocols.interfaces import ISession
from ws4redis_tx.protocols.replay import Replay
from ws4redis_tx.protocols.subscriber_connection import SubscriberConnection

_GROUP_RIGHTS = frozenset({"subscribe-group", "publish-group"})


class ClassicProtocol:
    """An ``IProtocol``. A session's ``state`` is its ``SubscriberConnection``.

    :param note: called with the kind and the text of a log line that clients can cause.
    """

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        make_subscriber: Callable[[SubscriberConnection], Any],
        reactor: Any,
        note: Callable[[str, str], object],
    ) -> None:
        self.path = config.websocket_url
        self._config = config
        self._broker = broker
        self._make_subscriber = make_subscriber
        self._known_rights = known_rights(make_subscriber)
        self._reactor = reactor
        self._quota = ClientQuota(config.client_quota, reactor)
        self._note = note

    def handshake(self, session: ISession) -> Deferred[Any]:
        flags = session.handshake.flags
        rights = [flag for flag in flags if flag in self._known_rights]
        if len(rights) != len(flags):
            check_flags(flags, self._known_rights)
        admitted = session.authorize(session.handshake, rights)
        return admitted.addCallback(self._subscribe, session, rights)

    def _subscribe(
        self, admission: Admission, session: ISession, requested: Sequence[str]
    ) -> Deferred[Any]:
        """Fire when all of the client's channels are subscribed."""
        handshake = session.handshake
        if not self._known_rights.issuperset(admission.rights):
            check_granted(admission.rights, self._known_rights)
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
        subscribed = maybeDeferred(
            subscriber.set_pubsub_channels, admission.request, list(admission.rights)
        ).addCallback(connection.when_subscribed)
        if not admission.rights:
            subscribed.addCallback(self._tell_no_rights, session, requested)
        elif not admission.identity.groups and not _GROUP_RIGHTS.isdisjoint(admission.rights):
            subscribed.addCallback(self._tell_no_groups, session, admission)
        return subscribed

    def _tell_no_rights(self, _: object, session: ISession, requested: Sequence[str]) -> None:
        # A subscriber may have found channels of its own.
        if session.ended or _channels(session):
            return
        why = "its URL asks for no right"
        if requested:
            why = f"none of the rights that it asked for was granted ({', '.join(requested)})"
        facility = shown(session.handshake.facility)
        self._note(
            "no rights", f"A websocket on facility {facility} may hear and say nothing: {why}"
        )

    def _tell_no_groups(self, _: object, session: ISession, admission: Admission) -> None:
        start = channel_name(session.state.namespace, "group", "")
        if session.ended or any(name.startswith(start) for name in _channels(session)):
            return
        user, facility = shown(str(admission.identity.username)), shown(session.handshake.facility)
        rights = ", ".join(_GROUP_RIGHTS.intersection(admission.rights))
        self._note(
            "no groups",
            f"The user {user} is in no group: {rights} on facility {facility} names no channel",
        )

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


def _channels(session: ISession) -> list[str]:
    """All channels that the client hears or speaks on."""
    connection: SubscriberConnection = session.state
    return [*connection.channels, *getattr(connection.subscriber, "_publishers", ())]
