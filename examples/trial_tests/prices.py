"""A Twisted application that sends prices to its customers; ``test_prices`` tests it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater

from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.service import Publisher, ServerConfig


class CustomerAuthorizer:
    """Admits customers by a cookie that holds a token, and grants every right they ask for."""

    def __init__(self, customers: Mapping[str, str]) -> None:
        self._customers = customers

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Admission:
        _, _, token = handshake.headers.get("cookie", "").partition("token=")
        if token not in self._customers:
            raise Denied(403, "Prices are for customers.")
        customer = Identity(username=self._customers[token])
        return Admission(customer, tuple(rights), PlainRequest(handshake.path_info, customer))


class PriceFeed:
    """Sends prices to everybody. If Redis is down, it tries once more, a second later.

    It does not try again if the price may have been published: nobody should get it twice.
    """

    def __init__(self, config: ServerConfig, broker: IBroker, clock: Any) -> None:
        self._config = config
        self._broker = broker
        self._clock = clock

    @inlineCallbacks
    def tell(self, symbol: str, price: str) -> Any:
        """Fire with whether the price was published, as far as is known."""
        publisher = Publisher(self._config, self._broker, facility=symbol, broadcast=True)
        try:
            yield publisher.publish_message(price)
        except BrokerUnavailable as error:
            if error.maybe_published:
                return False
            yield deferLater(self._clock, 1)
            try:
                yield publisher.publish_message(price)
            except BrokerUnavailable:
                return False
        return True

    def warn(self, customer: str, text: str) -> Deferred[int]:
        """Warn one customer, in all of their windows. The warning is not persisted."""
        publisher = Publisher(self._config, self._broker, facility="warnings", users=[customer])
        return publisher.publish_message(text, expire=0)
