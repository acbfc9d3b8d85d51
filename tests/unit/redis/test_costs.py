"""The cost of a message from Redis in calls, from the bytes of one read to the fan-out."""

from __future__ import annotations

from collections import Counter

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.calls import counted_calls
from tests.support.wires import from_redis
from ws4redis_tx.core.messages import Joined, Publication
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.dispatcher import Dispatcher
from ws4redis_tx.redis.wire.protocol import PubSubProtocol


class Listener:
    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def deliver(self, publication: Publication | Joined) -> None:
        self.heard += [each.payload for each in publication.parts]


class ArrivalCostTests(SynchronousTestCase):
    def setUp(self) -> None:
        address, clock = RedisAddress(), MemoryReactorClock()
        dispatcher = Dispatcher(
            address,
            "",
            clock,
            Commands(address, "", clock, timeout=1),
            on_up=lambda: None,
            on_down=lambda problem: None,
        )
        self.redis = PubSubProtocol(dispatcher.receive)
        self.listener = Listener()
        dispatcher.hub.add(b"user:mary:x", self.listener)

    def calls(self, number: int) -> Counter[str]:
        data = from_redis(*((b"user:mary:x", b"%d" % each) for each in range(number)))
        self.listener.heard.clear()
        counted = counted_calls(lambda: self.redis.dataReceived(data), within="/ws4redis_tx/redis/")
        self.assertEqual(self.listener.heard, [b"%d" % each for each in range(number)])
        return counted

    def test_one_message_costs_three_calls(self) -> None:
        counted = self.calls(1)
        self.assertLessEqual(counted.total(), 3, counted)

    def test_one_more_of_the_same_read_costs_one(self) -> None:
        counted = self.calls(51) - self.calls(1)
        self.assertLessEqual(counted.total(), 50, counted)

    def test_one_that_nobody_hears_costs_none(self) -> None:
        data = from_redis((b"user:john:x", b"1")) * 50
        counted = counted_calls(lambda: self.redis.dataReceived(data), within="/ws4redis_tx/redis/")
        self.assertLessEqual(counted.total(), 2, counted)
