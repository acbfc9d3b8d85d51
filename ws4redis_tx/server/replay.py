"""The way from the subscription to live: what is persisted first, through outages."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.task import deferLater

from ws4redis_tx.core.delivery import Delivery
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.interfaces import IBroker

# Before a replay that Redis, though available, would not serve is tried again.
RETRY_INTERVAL = 1.0


class Replay:
    """Has a subscriber send what is persisted, and lets the delivery go live when nothing that
    was published before can still be on its way.
    """

    __slots__ = ("_broker", "_delivery", "_subscriber", "_waiting", "_websocket")

    def __init__(
        self, subscriber: Any, websocket: Any, delivery: Delivery, broker: IBroker
    ) -> None:
        self._subscriber = subscriber
        self._websocket = websocket
        self._delivery = delivery
        self._broker = broker
        self._waiting: Deferred[None] | None = None

    @inlineCallbacks
    def run(self, reactor: Any) -> Any:
        """Fire when the delivery is live, or was closed; fail as the subscriber does."""
        broker = self._broker
        while not self._delivery.closed:
            generation = broker.generation
            try:
                yield maybeDeferred(self._subscriber.send_persisted_messages, self._websocket)
                yield broker.fence()
                if broker.generation == generation:
                    self._delivery.go_live()
                    return
            except BrokerRefused:
                raise
            except BrokerUnavailable:
                pass
            # Messages may have been missed since the read: start again when all is subscribed.
            self._delivery.restart()
            if self._delivery.closed:
                return
            if broker.available and broker.generation == generation:
                self._waiting = deferLater(reactor, RETRY_INTERVAL)
            else:
                self._waiting = broker.when_available()
            yield self._waiting.addErrback(lambda _: None)
            self._waiting = None

    def cancel(self) -> None:
        """The delivery was closed: wait for nothing any more."""
        if self._waiting is not None:
            self._waiting.cancel()
