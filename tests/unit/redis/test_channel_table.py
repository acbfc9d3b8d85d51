"""One subscription for each channel, however many listen; a listener is told when it stands."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.redis.channel_table import ChannelTable

REFUSED = BrokerUnavailable("no")


class Listener:
    def deliver(self, publication: Any) -> None:
        raise AssertionError("nothing is published here")


class ChannelTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[Deferred[None]] = []
        self.left: list[bytes] = []
        self.table = ChannelTable(Hub(self.fail), self.subscribe, self.left.append)
        self.one, self.other = Listener(), Listener()

    def subscribe(self, channel: bytes) -> Deferred[None]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_one_subscription_is_made_for_all_and_all_are_told_when_it_stands(self) -> None:
        first = self.table.listen(b"a", self.one)
        second = self.table.listen(b"a", self.other)
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.assertIn(b"a", self.table.subscribing)
        self.asked[0].callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.table.listen(b"a", Listener()))
        self.assertEqual((len(self.asked), dict(self.table.subscribing)), (1, {}))

    def test_an_answer_may_come_at_once(self) -> None:
        for answer, stands in ((succeed(None), True), (fail(REFUSED), False)):
            self.subscribe = lambda channel, answer=answer: answer  # type: ignore[method-assign]
            self.setUp()
            listening = self.table.listen(b"a", self.one)
            if stands:
                self.successResultOf(listening)
            else:
                self.failureResultOf(listening, BrokerUnavailable)
            self.assertIs(self.table.hub.has(b"a", self.one), stands)
            self.assertEqual(dict(self.table.subscribing), {})

    def test_when_it_fails_all_who_wait_are_told_and_not_registered_any_more(self) -> None:
        both = [self.table.listen(b"a", each) for each in (self.one, self.other)]
        self.asked[0].errback(Failure(REFUSED))
        for each in both:
            self.assertIs(self.failureResultOf(each).value, REFUSED)
        self.assertEqual((list(self.table.hub.channels), self.left), ([], [b"a"]))
        self.table.listen(b"a", self.one)
        self.assertEqual(len(self.asked), 2)

    def test_only_the_last_one_who_leaves_ends_the_subscription(self) -> None:
        for each in (self.one, self.other):
            self.table.listen(b"a", each)
        self.asked[0].callback(None)
        self.table.unlisten(b"a", self.one)
        self.table.unlisten(b"a", self.one)
        self.table.unlisten(b"b", self.other)
        self.assertEqual(self.left, [])
        self.table.unlisten(b"a", self.other)
        self.assertEqual(self.left, [b"a"])

    def test_one_who_comes_back_waits_for_another_subscription(self) -> None:
        left = self.table.listen(b"a", self.one)
        self.table.unlisten(b"a", self.one)
        again = self.table.listen(b"a", self.one)
        self.asked[0].callback(None)
        self.successResultOf(left)
        self.assertNoResult(again)
        self.assertIn(b"a", self.table.subscribing)
        self.asked[1].callback(None)
        self.successResultOf(again)
        self.assertEqual(dict(self.table.subscribing), {})

    def test_one_who_waits_no_longer_does_not_listen_and_the_others_do(self) -> None:
        given_up, waiting = (self.table.listen(b"a", each) for each in (self.one, self.other))
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.asked[0].callback(None)
        self.successResultOf(waiting)
        self.assertEqual(list(self.table.hub.listeners[b"a"]), [self.other])
