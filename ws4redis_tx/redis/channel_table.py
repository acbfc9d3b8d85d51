"""The table of channels: their listeners, and the subscriptions that are still being made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.scheduling.waiters import Waiters


class ChannelTable:
    """Keeps one subscription for each channel of ``hub``, however many listeners it has.

    :param subscribe: called when a channel has its first listener. Fires when the subscription
        stands, or fails with what its listeners are told.
    :param unsubscribe: called when a channel has lost its last listener.
    """

    def __init__(
        self,
        hub: Hub,
        subscribe: Callable[[bytes], Deferred[Any]],
        unsubscribe: Callable[[bytes], object],
    ) -> None:
        self.hub = hub
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._subscribing: dict[bytes, Waiters[None]] = {}
        self.subscribing: Mapping[bytes, object] = self._subscribing
        """By channel, the subscriptions that do not stand yet. A message that arrives meanwhile
        belongs to an earlier subscription of the channel, which has ended: it is nobody's.
        """

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        """Fire when the subscription stands. The listener is registered at once, and is not
        registered any more if the subscription fails.
        """
        if not self.hub.add(channel, listener):
            waiters = self._subscribing.get(channel)
            return succeed(None) if waiters is None else self._wait(waiters, channel, listener)
        waiters = self._subscribing[channel] = Waiters()
        stands = self._wait(waiters, channel, listener)
        self._subscribe(channel).addBoth(self._answered, channel, waiters)
        return stands

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        if self.hub.discard(channel, listener):
            self._subscribing.pop(channel, None)
            self._unsubscribe(channel)

    def _wait(self, waiters: Waiters[None], channel: bytes, listener: IListener) -> Deferred[None]:
        return waiters.wait().addErrback(self._not_subscribed, channel, listener)

    def _not_subscribed(self, failure: Failure, channel: bytes, listener: IListener) -> Failure:
        self.unlisten(channel, listener)
        return failure

    def _answered(self, answer: object, channel: bytes, waiters: Waiters[None]) -> None:
        # Otherwise all have left since, and some may have come back: that is another subscription.
        if self._subscribing.get(channel) is waiters:
            del self._subscribing[channel]
        if isinstance(answer, Failure):
            waiters.fail(answer)
        else:
            waiters.fire(None)
