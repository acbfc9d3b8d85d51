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
from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, check_flags, check_granted
from ws4redis_tx.core.errors import (
    BrokerUnavailable,
    Denied,
    HookFailed,
    MessageRefused,
    shown,
    unavailable,
)
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.core.messages import ICodec, RedisMessage
from ws4redis_tx.core.names import channel_name, known_rights
from ws4redis_tx.core.positions import IHistory, history_of
from ws4redis_tx.delivery.resuming import ResumingFeed
from ws4redis_tx.protocols.client_quota import ClientQuota
from ws4redis_tx.protocols.interfaces import OVER_RATE, ISession
from ws4redis_tx.protocols.replay import Replay
from ws4redis_tx.protocols.resume import (
    SUBPROTOCOL,
    PositionCodec,
    Resume,
    position_asked_for,
)
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
        self.quota = ClientQuota(config.client_quota, reactor)
        """What the clients of each address may persist, by any protocol."""
        self._note = note
        self._history: IHistory | None = None
        if hasattr(broker, "missed"):  # an application's own broker may know no positions
            self._history = cast(IHistory, broker)
        self._codecs: dict[ICodec, PositionCodec] = {}

    def handshake(self, session: ISession) -> Deferred[Any]:
        flags = session.handshake.flags
        rights = [flag for flag in flags if flag in self._known_rights]
        if len(rights) != len(flags):
            check_flags(flags, self._known_rights)
        handshake, history = session.handshake, self._history
        if handshake.events and history is None:
            raise unavailable("its broker knows no positions, which server-sent events need")
        admitted = session.authorize(handshake, rights)
        if handshake.events:
            # Last: a client whose websocket was refused asks here why.
            admitted.addCallback(_check_direction, rights)
        resumes = handshake.events or SUBPROTOCOL in handshake.subprotocols
        if resumes and history is not None:
            if not handshake.events:
                session.outbox.codec = self._codec_over(session.outbox.codec)
            session.feed = ResumingFeed(session.outbox, history)
            admitted.addCallback(self._begin, session, history)
        return admitted.addCallback(self._subscribe, session, rights)

    def _codec_over(self, framing: ICodec) -> PositionCodec:
        codec = self._codecs.get(framing)
        if codec is None:
            codec = self._codecs[framing] = PositionCodec(framing)
        return codec

    @inlineCallbacks
    def _begin(self, admission: Admission, session: ISession, history: IHistory) -> Any:
        """Find out at which position the client connects, before it is subscribed."""
        handshake = session.handshake
        if not handshake.events:
            others = [each for each in handshake.subprotocols if each != SUBPROTOCOL]
            session.handshake = replace(handshake, subprotocols=(SUBPROTOCOL, *others))
        if not position_asked_for(handshake):
            start = yield history.now()
            if session.ended:
                raise BrokerUnavailable("The client is gone.")
            session.state = start
        return admission

    def _subscribe(
        self, admission: Admission, session: ISession, requested: Sequence[str]
    ) -> Deferred[Any]:
        """Fire when all of the client's channels are subscribed."""
        handshake, start, rules = session.handshake, session.state, self._config.history
        if not self._known_rights.issuperset(admission.rights):
            check_granted(admission.rights, self._known_rights)
        connection = session.state = SubscriberConnection(
            self._config,
            self._broker,
            session.feed,
            self.quota,
            handshake.peer,
            echo="echo" in handshake.flags,
            tenant=admission.identity.tenant,
            history=history_of(rules, handshake.facility) if rules else None,
        )
        connection.start = start
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
        if isinstance(session.feed, ResumingFeed):
            resume = connection.replay = Resume(
                connection, session, session.feed, self._broker, self._reactor
            )
            return resume.run()
        replay = connection.replay = Replay(
            connection, session, session.feed, self._broker, self._reactor
        )
        return replay.run().addBoth(connection.replayed)

    def received(self, session: ISession, payload: bytes) -> Any:
        judged = session.judge(payload)
        if judged is None:
            return session.state.subscriber.publish_message(RedisMessage(payload))
        return judged.addCallbacks(
            self._publish, self._refuse, callbackArgs=(session,), errbackArgs=(session,)
        )

    def _publish(self, message: bytes | None, session: ISession) -> Any:
        if message is None:
            return None
        # In a Deferred's callback a coroutine would not run.
        return maybeDeferred(session.state.subscriber.publish_message, RedisMessage(message))

    def _refuse(self, failure: Failure, session: ISession) -> None:
        failure.trap(MessageRefused)
        refusal: Any = failure.value
        if isinstance(refusal, HookFailed):
            session.close(1011, "The server failed.")
        else:
            session.close(1008, refusal.reason)

    def close_code(self, code: int, reason: str) -> tuple[int, str]:
        return (1013 if code == OVER_RATE else code), reason

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


def _check_direction(admission: Admission, rights: Sequence[str]) -> Admission:
    if any(right.startswith("publish-") for right in rights):
        raise Denied(400, "Server-sent events go one way. Publish over a websocket, or a view.")
    return admission


def _channels(session: ISession) -> list[str]:
    """All channels that the client hears or speaks on."""
    connection: SubscriberConnection = session.state
    return [*connection.channels, *getattr(connection.subscriber, "_publishers", ())]
