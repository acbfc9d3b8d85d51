"""When a test says so, the broker in memory fails, delays, becomes unavailable and recovers."""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.brokers import Listener
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Joined, Publication
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, make_memory_factory

URL = "ws://localhost/ws/news?subscribe-broadcast"
NEWS = b"broadcast:news"


class Joining:
    """Takes messages that arrive together in one call, as websockets do."""

    takes_joined = True

    def __init__(self) -> None:
        self.pieces: list[list[bytes]] = []

    def deliver(self, publication: Publication | Joined) -> None:
        self.pieces.append([each.payload for each in publication.parts])


class BrokerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = MemoryBroker(self.clock)
        self.listener = Listener()
        self.successResultOf(self.broker.listen(b"a", self.listener))

    def assert_fails(self, deferred: Any, *, maybe_published: bool = False) -> None:
        error = self.failureResultOf(deferred, BrokerUnavailable).value
        self.assertEqual(error.maybe_published, maybe_published)

    def heard(self) -> list[bytes]:
        return [payload for _, payload in self.listener.heard]


class FailNextTests(BrokerTests):
    def test_the_next_call_fails_and_the_one_after_it_does_not(self) -> None:
        for call in (
            lambda: self.broker.publish([b"a"], b"hi", 60),
            lambda: self.broker.get(b"a"),
            lambda: self.broker.listen(b"b", self.listener),
        ):
            self.broker.fail_next()
            self.assert_fails(call())
            self.assertEqual((self.heard(), self.broker.persisted), ([], {}))
            self.assertEqual(list(self.broker.hub.channels), [b"a"])
        self.successResultOf(self.broker.publish([b"a"], b"hi", 60))
        self.assertEqual((self.heard(), self.broker.persisted), ([b"hi"], {b"a": b"hi"}))

    def test_as_many_fail_as_were_asked_for(self) -> None:
        self.broker.fail_next(2)
        self.broker.fail_next()
        for _ in range(3):
            self.assert_fails(self.broker.get(b"a"))
        self.assertIsNone(self.successResultOf(self.broker.get(b"a")))

    def test_a_message_that_was_maybe_published_went_out_and_its_sender_knows_it_not(self) -> None:
        self.broker.fail_next(maybe_published=True)
        self.assert_fails(
            self.broker.publish([b"a"], b"hi", 60, self.listener), maybe_published=True
        )
        self.assertEqual(self.broker.persisted, {b"a": b"hi"})
        self.assertIs(self.listener.publications[0].sender, self.listener)

    def test_a_failed_publish_hides_no_later_message_from_its_sender(self) -> None:
        self.broker.fail_next()
        self.assert_fails(self.broker.publish([b"a"], b"hi", 0, self.listener))
        self.broker.publish([b"a"], b"hi", 0)
        self.assertIsNone(self.listener.publications[0].sender)


class DelayTests(BrokerTests):
    def test_answers_and_messages_take_their_time_by_the_clock(self) -> None:
        self.broker.delay = 0.2
        published = self.broker.publish([b"a"], b"hi", 60)
        read = self.broker.get(b"a")
        fence = self.broker.fence()
        self.clock.advance(0.1)
        for waiting in (published, read, fence):
            self.assertNoResult(waiting)
        self.assertEqual(self.heard(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(published), 1)
        self.assertEqual(self.successResultOf(read), b"hi")
        self.successResultOf(fence)
        self.assertEqual(self.heard(), [b"hi"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_subscription_stands_when_its_answer_has_come(self) -> None:
        self.broker.delay = 0.2
        other = Listener()
        first, second = (self.broker.listen(b"b", each) for each in (self.listener, other))
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.clock.advance(0.2)
        self.successResultOf(first)
        self.successResultOf(second)
        self.broker.publish([b"b"], b"hi", 0)
        self.clock.advance(0.2)
        self.assertEqual((self.heard(), other.heard), ([b"hi"], [(b"b", b"hi")]))

    def test_what_was_published_before_a_subscription_is_not_heard_by_it(self) -> None:
        self.broker.delay = 0.2
        self.broker.publish([b"b"], b"before", 0)
        self.broker.listen(b"b", self.listener)
        self.broker.publish([b"b"], b"after", 0)
        self.broker.flush()
        self.assertEqual(self.heard(), [b"after"])

    def test_nothing_overtakes_when_the_delay_gets_shorter(self) -> None:
        self.broker.delay = 0.2
        self.broker.publish([b"a"], b"1", 0)
        self.broker.delay = 0
        published = self.broker.publish([b"a"], b"2", 0)
        self.assertNoResult(published)
        self.clock.advance(0.2)
        self.assertEqual(self.heard(), [b"1", b"2"])

    def test_flush_waits_for_nothing(self) -> None:
        self.broker.delay = 1000
        published = self.broker.publish([b"a"], b"hi", 0)
        self.broker.flush()
        self.successResultOf(published)
        self.assertEqual((self.heard(), self.clock.getDelayedCalls()), ([b"hi"], []))

    def test_without_a_clock_or_without_end_only_flush_ends_it(self) -> None:
        for broker, delay in ((MemoryBroker(), 0.1), (MemoryBroker(self.clock), math.inf)):
            broker.delay = delay
            published = broker.publish([b"a"], b"hi", 0)
            self.clock.advance(10**6)
            self.assertNoResult(published)
            broker.flush()
            self.successResultOf(published)

    def test_what_arrives_together_is_handed_over_together(self) -> None:
        joining = Joining()
        self.broker.listen(b"a", joining)
        self.broker.listen(b"b", joining)
        self.broker.delay = math.inf
        for number in range(3):
            self.broker.publish_elsewhere([b"a", b"b"], b"%d" % number)
        self.broker.flush()
        self.assertEqual(joining.pieces, [[b"0", b"0", b"1", b"1", b"2", b"2"]])

    def test_a_listener_that_publishes_keeps_the_order_for_all(self) -> None:
        broker = self.broker

        class Answering(Listener):
            def deliver(self, publication: Publication) -> None:
                super().deliver(publication)
                if publication.payload == b"question":
                    broker.publish([b"b"], b"answer", 0)

        for listener in (Answering(), self.listener):
            broker.listen(b"b", listener)
        broker.publish([b"b"], b"question", 0)
        self.assertEqual(self.heard(), [b"question", b"answer"])


class OutageTests(BrokerTests):
    def test_while_it_lasts_every_call_fails_and_nothing_goes_out(self) -> None:
        self.broker.lose_connection()
        for call in (
            self.broker.publish([b"a"], b"hi", 60),
            self.broker.get(b"a"),
            self.broker.listen(b"b", self.listener),
            self.broker.fence(),
        ):
            self.assert_fails(call)
        self.assertFalse(self.broker.available)
        self.broker.restore()
        self.assertEqual((self.heard(), self.broker.persisted), ([], {}))
        self.assertEqual(list(self.broker.hub.channels), [b"a"])

    def test_what_is_under_way_is_lost(self) -> None:
        self.broker.delay = 1
        published = self.broker.publish([b"a"], b"hi", 0)
        others = [
            self.broker.get(b"a"),
            self.broker.listen(b"b", self.listener),
            self.broker.fence(),
        ]
        self.broker.lose_connection()
        self.assert_fails(published, maybe_published=True)
        for other in others:
            self.assert_fails(other)
        self.broker.restore()
        self.clock.advance(1)
        self.assertEqual(self.heard(), [])
        self.assertEqual(list(self.broker.hub.channels), [b"a"])

    def test_what_was_under_way_and_is_persisted_comes_when_it_is_restored(self) -> None:
        self.broker.delay = 1
        for message, expire in ((b"1", 60), (b"2", 60), (b"3", 0)):
            self.broker.publish([b"a"], message, expire).addErrback(lambda _: None)
        self.broker.lose_connection()
        self.broker.restore()
        self.assertEqual(self.heard(), [b"2"])
        self.broker.lose_connection()
        self.broker.restore()
        self.assertEqual(self.heard(), [b"2"])

    def test_what_was_not_persisted_is_gone_and_brings_nothing_older_again(self) -> None:
        self.broker.publish([b"a"], b"heard", 60)
        self.broker.delay = 1
        self.broker.publish([b"a"], b"under way", 0).addErrback(lambda _: None)
        self.broker.lose_connection()
        self.broker.restore()
        self.broker.lose_connection()
        self.broker.publish_elsewhere([b"a"], b"meanwhile")
        self.broker.restore()
        self.assertEqual(self.heard(), [b"heard"])

    def test_what_has_expired_meanwhile_does_not_come(self) -> None:
        self.broker.lose_connection()
        self.broker.publish_elsewhere([b"a"], b"hi", 60)
        self.clock.advance(61)
        self.broker.restore()
        self.assertEqual(self.heard(), [])

    def test_who_waits_for_it_is_told_when_it_is_back_and_only_then(self) -> None:
        self.broker.lose_connection()
        waiting = self.broker.when_available()
        given_up = self.broker.when_available()
        given_up.addErrback(lambda _: None).cancel()
        self.assertNoResult(waiting)
        self.broker.restore()
        self.successResultOf(waiting)
        generation = self.broker.generation
        self.broker.restore()
        self.assertEqual(self.broker.generation, generation)

    def test_a_note_of_a_lost_message_hides_no_later_one(self) -> None:
        self.broker.delay = 1
        self.broker.publish([b"a"], b"hi", 0, self.listener).addErrback(lambda _: None)
        self.broker.lose_connection()
        self.broker.restore()
        self.broker.publish([b"a"], b"hi", 0)
        self.broker.flush()
        self.assertEqual([each.sender for each in self.listener.publications], [None])


class ExpiryTests(BrokerTests):
    def test_what_is_persisted_expires_by_the_clock(self) -> None:
        self.broker.publish([b"a"], b"hi", 60)
        self.clock.advance(59)
        self.assertEqual(self.successResultOf(self.broker.get(b"a")), b"hi")
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(self.broker.get(b"a")))

    def test_what_has_expired_is_not_shown_either(self) -> None:
        self.broker.publish([b"a"], b"hi", 60)
        self.broker.publish([b"b"], b"ho", 61)
        self.clock.advance(60)
        self.assertEqual(self.broker.persisted, {b"b": b"ho"})


class ServerTests(SynchronousTestCase):
    """The server's own websockets over such a broker."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = make_memory_factory(ServerConfig(rate=None), clock=self.clock)
        self.broker = self.factory.broker

    def connect(self) -> MemoryClient:
        return connect(self.factory, URL)

    def test_the_broker_goes_by_the_factorys_clock_unless_it_has_its_own(self) -> None:
        self.assertIs(self.broker.clock, self.clock)
        own = Clock()
        self.assertIs(make_memory_factory(broker=MemoryBroker(own)).broker.clock, own)

    def test_a_handshake_waits_for_its_subscription_until_the_client_flushes(self) -> None:
        self.broker.publish([NEWS], b"before", 60)
        self.broker.delay = math.inf
        client = self.connect()
        self.assertFalse(client.open)
        self.broker.publish_elsewhere([NEWS], b"meanwhile", 60)
        client.flush()
        self.assertTrue(client.open)
        self.assertEqual(client.messages[-1], "meanwhile")
        self.assertEqual(len(client.messages), len(set(client.messages)))

    def test_a_handshake_whose_subscription_fails_is_refused_with_503(self) -> None:
        self.broker.fail_next()
        self.assertEqual(self.connect().refused, 503)
        self.assertTrue(self.connect().open)

    def test_an_outage_refuses_who_comes_and_keeps_who_is_there(self) -> None:
        client = self.connect()
        self.broker.lose_connection()
        self.assertEqual(self.connect().refused, 503)
        self.broker.publish_elsewhere([NEWS], b"kept", 60)
        self.broker.publish_elsewhere([b"broadcast:other"], b"not asked for", 60)
        self.assertEqual((client.open, client.messages), (True, []))
        self.broker.restore()
        self.assertEqual(client.messages, ["kept"])
        self.assertTrue(self.connect().open)

    def test_an_outage_in_the_middle_of_a_replay_costs_nothing_and_brings_nothing_twice(
        self,
    ) -> None:
        self.broker.publish([NEWS], b"1", 60)
        self.broker.delay = 1
        client = self.connect()
        self.clock.advance(1)
        self.assertTrue(client.open)
        self.broker.publish_elsewhere([NEWS], b"2", 60)
        self.broker.lose_connection()
        self.broker.publish_elsewhere([NEWS], b"3", 60)
        self.broker.restore()
        client.flush()
        self.assertEqual(client.messages, ["3"])
