"""Gaps in a history: evicted keys, and messages of publishers without one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.brokers import BrokerTestCase
from ws4redis_tx.core.positions import NOT_KEPT, History, Kept, Position
from ws4redis_tx.scheduling.deferreds import gather

F, G = b"broadcast:f", b"user:john:f"
KEPT = Kept(History(100, 3600))


class MissedTestCase(BrokerTestCase):
    history = (("f", 100, 3600),)

    @inlineCallbacks
    def publish(self, *payloads: bytes, kept: Kept = KEPT, expire: int = 60) -> Any:
        for payload in payloads:
            yield self.broker.commands.publish([F], payload, expire, kept)
        return (yield self.broker.now())

    @inlineCallbacks
    def assert_missed(self, since: Position, *payloads: bytes) -> Any:
        missed = yield self.broker.missed([F, G], since)
        self.assertEqual(
            ([each.payload for each in missed.messages], missed.gaps), ([*payloads], frozenset())
        )

    @inlineCallbacks
    def assert_gap(self, since: Position) -> Any:
        missed = yield self.broker.missed([F, G], since)
        self.assertEqual(([each.payload for each in missed.messages], missed.gaps), ([], {F}))


class EvictedTests(MissedTestCase):
    @inlineCallbacks
    def test_the_position_of_a_channel(self) -> Any:
        since = yield self.publish(b"1")
        yield self.publish(b"2")
        self.redis.command("DEL", b"pos:" + F)
        yield self.assert_missed(since, b"2")
        after = yield self.publish(b"3")
        yield self.assert_gap(since)
        yield self.publish(b"4")
        yield self.assert_missed(after, b"4")

    @inlineCallbacks
    def test_the_history_of_a_channel(self) -> Any:
        since = yield self.publish(b"1")
        last = yield self.publish(b"2")
        self.redis.command("DEL", b"stream:" + F)
        yield self.assert_gap(since)
        yield self.assert_missed(last)
        yield self.publish(b"3")
        yield self.assert_gap(since)

    @inlineCallbacks
    def test_both(self) -> Any:
        since = yield self.publish(b"1")
        last = yield self.publish(b"2")
        self.redis.command("DEL", b"pos:" + F, b"stream:" + F)
        yield self.assert_gap(since)
        yield self.assert_missed(last)
        after = yield self.publish(b"3")
        yield self.assert_gap(since)
        yield self.publish(b"4")
        yield self.assert_missed(after, b"4")

    @inlineCallbacks
    def test_the_persisted_message_and_its_stamp_do_not_matter(self) -> Any:
        since = yield self.publish(b"1")
        yield self.publish(b"2", b"3")
        self.redis.command("DEL", F, b"at:" + F)
        yield self.assert_missed(since, b"2", b"3")


class WithoutHistoryTests(MissedTestCase):
    """Messages of publishers that lack the setting, such as those of the first edition."""

    @inlineCallbacks
    def test_the_last_message_is_in_no_history(self) -> Any:
        since = yield self.publish(b"1")
        yield self.publish(b"plain", kept=NOT_KEPT)
        yield self.assert_gap(since)
        after = yield self.broker.now()
        yield self.assert_missed(after)
        yield self.publish(b"2")
        yield self.assert_missed(after, b"2")

    @inlineCallbacks
    def test_the_first_message_of_a_channel_is_in_no_history(self) -> Any:
        since = yield self.broker.now()
        yield self.publish(b"plain", kept=NOT_KEPT)
        yield self.assert_gap(since)

    @inlineCallbacks
    def test_each_who_asks_at_once_gets_the_answer_for_their_own_position(self) -> Any:
        since = yield self.publish(b"1")
        yield self.publish(b"plain", kept=NOT_KEPT)
        after = yield self.broker.now()
        first, second = yield gather([self.broker.missed([F], each) for each in (since, after)])
        self.assertEqual((first.gaps, second.gaps), ({F}, frozenset()))

    @inlineCallbacks
    def test_a_message_that_never_expires_is_in_no_history(self) -> Any:
        since = yield self.broker.now()
        self.redis.command("SET", F, "of another program")
        yield self.assert_gap(since)

    @inlineCallbacks
    def test_a_kept_message_that_is_not_persisted_follows_one_that_is(self) -> Any:
        since = yield self.publish(b"1")
        yield self.publish(b"2")
        yield self.publish(b"3", expire=0)
        yield self.assert_missed(since, b"2", b"3")
