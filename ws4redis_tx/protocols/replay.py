"""The replay of persisted messages, from the subscription to live, through outages."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.protocols.interfaces import ISession
from ws4redis_tx.protocols.subscriber_connection import SubscriberConnection

# Seconds before the retry of a replay that failed although Redis is available.
RETRY_INTERVAL = 1.0


class Replay:
    """Makes a subscriber send the persisted messages, and lets the feed go live once no earlier
    message can still be on its way.
    """

    __slots__ = (
        "_broker", "_connection", "_feed", "_generation", "_live", "_reactor", "_session",
        "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        connection: SubscriberConnection,
        session: ISession,
        feed: Feed,
        broker: IBroker,
        reactor: Any,
    ) -> None:
        self._connection = connection
        self._session = session
        self._feed = feed
        self._broker = broker
        self._reactor = reactor
        self._generation = 0
        self._waiting: Deferred[None] | None = None
        self._live: Deferred[None] = Deferred()

    def run(self) -> Deferred[None]:
        """Fire when the feed is live or closed. Fail if the subscriber fails."""
        self._try()
        return self._live

    def cancel(self) -> None:
        """The feed was closed: stop waiting."""
        if self._waiting is not None:
            self._waiting.cancel()

    def _try(self, _: object = None) -> None:
        self._waiting = None
        if self._feed.closed:
            self._live.callback(None)
            return
        self._generation = self._broker.generation
        sent: Deferred[Any] = maybeDeferred(
            self._connection.subscriber.send_persisted_messages, self._session
        )
        sent.addCallback(self._fence).addCallback(self._arrived).addErrback(self._not_sent)
        sent.addErrback(self._live.errback)

    def _fence(self, _: object) -> Deferred[None]:
        return self._broker.fence(self._connection.encoded_channels())

    def _arrived(self, _: object) -> None:
        """Go live: all earlier messages are here, unless the connection was replaced meanwhile."""
        if self._broker.generation == self._generation:
            self._feed.go_live()
            self._live.callback(None)
        else:
            self._try_again()

    def _not_sent(self, failure: Failure) -> Failure | None:
        refused = failure.check(BrokerRefused) and self._broker.available  # this read alone
        if refused or not failure.check(BrokerUnavailable):
            return failure
        self._try_again()
        return None

    def _try_again(self) -> None:
        """Messages may have been missed since the read: start again once all is subscribed."""
        if self._feed.closed:
            self._live.callback(None)
            return
        self._feed.restart()
        if self._broker.available and self._broker.generation == self._generation:
            self._waiting = deferLater(self._reactor, RETRY_INTERVAL)
        else:
            self._waiting = self._broker.when_available()
        self._waiting.addErrback(lambda _: None).addCallback(self._try)
