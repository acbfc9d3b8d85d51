"""Redis as one websocket's subscriber sees it: the websocket's channels and its publishing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.core.messages import PersistedMessage, Publication, payload_of
from ws4redis_tx.core.names import channels_to_publish_on, check_within, namespace
from ws4redis_tx.core.positions import History, Position
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.protocols.client_quota import ClientQuota
from ws4redis_tx.scheduling.deferreds import gather, succeeded

if TYPE_CHECKING:
    from ws4redis_tx.protocols.replay import Replay
    from ws4redis_tx.protocols.resume import Resume


class SubscriberConnection:
    """The connection of a ``RedisSubscriber``: the process's broker, on behalf of one websocket.

    Everything runs in the reactor thread and returns Deferreds; channels are strings.
    """

    __slots__ = (
        "__dict__",  # for attributes of an application's own
        "_broker", "_feed", "_peer", "_published", "_quota", "_sender", "_subscribing",
        "_subscriptions", "config", "history", "namespace", "replay", "start", "subscriber",
        "tenant",
    )  # fmt: skip

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        feed: Feed,
        quota: ClientQuota,
        peer: str,
        *,
        echo: bool,
        tenant: str = "",
        history: History | None = None,
    ) -> None:
        self.config = config
        self.tenant = tenant
        self.history = history
        """The history that its facility keeps."""
        self.namespace = namespace(config.prefix, tenant)
        """The beginning of the names of all its channels, without the last ``:``."""
        self.subscriber: Any = None
        self.replay: Replay | Resume | None = None
        """The replay, while it runs; or the way in which the client resumes, until the end."""
        self.start: Position | None = None
        """The position at which the client connected, if it keeps one and has asked for none."""
        self._broker = broker
        self._feed = feed
        self._quota = quota
        self._peer = peer
        self._sender = None if echo else feed
        # Messages that the websocket published before its replay ended: they must not come back
        # from a key. Rarely needed, so made on first use: every websocket has one of these objects.
        self._published: set[tuple[bytes, bytes]] | None = None
        self._subscriptions: tuple[Subscription, ...] = ()
        self._subscribing: tuple[Deferred[Any], ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        """All channels that the websocket listens to now."""
        return tuple([name for each in self._subscriptions for name in each.channels])

    def encoded_channels(self) -> Iterator[bytes]:
        for each in self._subscriptions:
            for name in each.channels:
                yield name.encode()

    def pubsub(self) -> Subscription:
        subscription = Subscription(self._broker, self._feed, self)
        self._subscriptions += (subscription,)
        return subscription

    def note(self, outcome: Deferred[Any]) -> None:
        """Make ``when_subscribed`` wait for a subscription that is not in effect yet."""
        self._subscribing += (outcome,)

    def replayed(self, result: Any) -> Any:
        """The replay has ended."""
        self.replay = None
        return result

    def get(self, channel: str) -> Deferred[PersistedMessage | None]:
        """Fire with the message persisted for ``channel``.

        ``None`` also for a message that the websocket published itself without asking for echo.
        """
        if self.tenant:
            check_within(self.namespace, [channel])
        # Commands reach Redis in order, so this cannot read a message that is published later.
        own = frozenset(self._published or ())
        if not own:
            return self._broker.get(channel.encode())
        return self._broker.get(channel.encode()).addCallback(
            lambda found: None if found is not None and (found.channel, found) in own else found
        )

    def publish(
        self, channels: Iterable[str], message: bytes | str, expire: int | None = None
    ) -> Deferred[int]:
        """Publish, and persist unless its address has persisted as much as it may: a history may
        have no holes, so the message is refused there with ``BrokerUnavailable``. The websocket
        does not get it back unless it asked for echo.

        ``expire`` is in seconds; without it, or for one channel alone, a ``TypeError`` tells how to
        write what used to be a call of redis-py.
        """
        names, payload = channels_to_publish_on(channels, expire), payload_of(message)
        if self.tenant:
            check_within(self.namespace, [name.decode() for name in names])
        seconds = max(0, expire or 0)
        history = self.history
        lasting = max(seconds, history.seconds) if history else seconds
        kept = history.size + 1 if history else 1
        if lasting and not self._quota.admits(self._peer, names, len(payload), lasting, kept):
            if history:
                return fail(BrokerUnavailable("Its address has kept as much as it may."))
            seconds = 0
        if self._sender is None or not self._feed.replaying:
            self._published = None
        else:
            self._published = self._published or set()
            self._published.update((name, payload) for name in names)
        if history is None:
            return self._broker.publish(names, payload, seconds, self._sender)
        return self._broker.publish(names, payload, seconds, self._sender, history)

    def fileno(self) -> int | None:
        return self._broker.fileno()

    def when_subscribed(self, _: object = None) -> Deferred[Any] | None:
        """Fire when every subscription made so far is in effect, or fail like the first that fails.
        The subscriber need not wait for them itself. ``None``: all are in effect already.
        """
        outcomes, self._subscribing = self._subscribing, ()
        if not outcomes:
            return None
        return gather(outcomes).addCallback(_raise_failure)

    def release(self) -> None:
        """Release everything that the subscriber's own ``release`` left over."""
        for subscription in self._subscriptions:
            subscription.release()
        self._broker.forget(self._feed)


class Subscription:
    """The channels whose messages one websocket gets."""

    __slots__ = ("_broker", "_connection", "_feed", "_next_messages", "channels")

    def __init__(self, broker: IBroker, feed: Feed, connection: SubscriberConnection) -> None:
        self._broker = broker
        self._connection = connection
        self._feed = feed
        self._next_messages: tuple[_NextMessage, ...] = ()
        self.channels: list[str] = []

    def subscribe(self, *channels: str) -> Deferred[Any]:
        """Fire when all subscriptions are in effect: messages published from then on arrive.

        Fails with ``BrokerUnavailable`` once the websocket is gone.
        """
        if self._feed.closed:
            return fail(BrokerUnavailable("The websocket is gone."))
        if self._connection.tenant:
            check_within(self._connection.namespace, channels)
        added = [channel for channel in dict.fromkeys(channels) if channel not in self.channels]
        self.channels += added
        listening = gather(self._broker.listen(channel.encode(), self._feed) for channel in added)
        if succeeded(listening):
            return listening
        outcome: Deferred[Any] = Deferred()
        self._connection.note(outcome)

        def note_result(result: Any) -> Any:
            outcome.callback([result])  # in a list, so that a failure is not reported as unhandled
            return result

        return listening.addBoth(note_result)

    def unsubscribe(self, *channels: str) -> None:
        """Leave ``channels``, or all if none are named."""
        left = [channel for channel in self.channels if not channels or channel in channels]
        for channel in left:
            self.channels.remove(channel)
            self._broker.unlisten(channel.encode(), self._feed)

    def parse_response(self) -> Deferred[bytes]:
        """Fire with the next message on any of the channels."""
        next_message = _NextMessage(self._broker, self.channels)
        self._next_messages = (
            *[each for each in self._next_messages if not each.done],
            next_message,
        )
        return next_message.arrived

    def release(self) -> None:
        """Leave all channels, and stop waiting for messages."""
        self.unsubscribe()
        for next_message in self._next_messages:
            next_message.leave()


def _raise_failure(outcomes: list[list[Any]]) -> None:
    for (outcome,) in outcomes:
        if isinstance(outcome, Failure):
            outcome.raiseException()


class _NextMessage:
    """A listener for one message."""

    def __init__(self, broker: IBroker, channels: Iterable[str]) -> None:
        self._broker = broker
        self.done = False
        self._channels = [channel.encode() for channel in channels]
        self.arrived: Deferred[bytes] = Deferred(lambda _: self.leave())
        for channel in self._channels:
            broker.listen(channel, self).addErrback(self._failed)

    def deliver(self, publication: Publication) -> None:
        if self.done:
            return
        self.leave()
        self.arrived.callback(publication.payload)

    def _failed(self, failure: Any) -> None:
        self.leave()
        if not self.arrived.called:
            self.arrived.errback(failure)

    def leave(self) -> None:
        self.done = True
        for channel in self._channels:
            self._broker.unlisten(channel, self)
