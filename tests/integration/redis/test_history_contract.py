"""One contract for histories (``IHistory``), kept by the real broker and by the one for tests."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults, inlineCallbacks, succeed
from twisted.trial.unittest import TestCase

from tests.support.brokers import Listener, start_broker
from tests.support.redis import shared_redis
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Joined, Publication
from ws4redis_tx.core.positions import History, Kept, Missed, Position
from ws4redis_tx.delivery.direct import CAREFUL
from ws4redis_tx.delivery.resuming import ResumingFeed
from ws4redis_tx.redis.history.publishing import kept_command
from ws4redis_tx.testing import MemoryBroker

RULES = (("f", 5, 60), ("small", 2, 60))
F, JOHN, SMALL, PLAIN = b"broadcast:f", b"user:john:f", b"broadcast:small", b"broadcast:plain"
KEPT = History(5, 60)


class Client(ResumingFeed):
    """A client's feed that shows what it is handed, and what positions it is told."""

    listener: Listener

    def __init__(self) -> None:
        self.told: DeferredQueue[Any] = DeferredQueue()

    def deliver(self, publication: Publication | Joined) -> None:
        for each in publication.parts:
            self.listener.deliver(each)

    def mark(self, position: Position | None) -> None:
        self.told.put(position)

    @property
    def direct(self) -> Any:
        return CAREFUL


class HistoryContract:
    """The promises of ``IHistory``. ``self.broker`` is available, and has the history ``RULES``."""

    broker: Any

    def publish(
        self,
        channel: bytes,
        message: bytes,
        expire: int = 60,
        history: History | None = KEPT,
    ) -> Any:
        return self.broker.publish([channel], message, expire, None, history)

    @inlineCallbacks
    def say(self, *messages: bytes, channel: bytes = F) -> Any:
        """Publish, and wait for the answers."""
        for message in messages:
            yield self.publish(channel, message)

    def publish_elsewhere(
        self, channel: bytes, message: bytes, expire: int, history: History | None
    ) -> None:
        """Publish as another process does, also in an outage."""
        raise NotImplementedError

    def forget(self, channel: bytes) -> Deferred[Any]:
        """Do what ``RedisPublisher.forget`` does."""
        raise NotImplementedError

    def lose_connection(self) -> Deferred[None]:
        """Fire when it is lost; it does not come back before the reactor's next turn."""
        raise NotImplementedError

    def restored(self) -> Deferred[None]:
        """Fire when the broker is available again."""
        raise NotImplementedError

    def payloads(self, missed: Missed) -> list[bytes]:
        return [each.payload for each in missed.messages]

    @inlineCallbacks
    def missed(self, since: Position | None, *channels: bytes, persisted: bool = False) -> Any:
        found = yield self.broker.missed(channels or [F], since, persisted=persisted)
        for each in (*found.messages, *found.persisted):
            self.assertTrue(each.replayed)
        for each in found.messages:
            self.assertTrue(found.since < each.position <= found.until, found)
        return found

    # Positions

    @inlineCallbacks
    def test_now_lies_between_what_was_published_before_and_after(self) -> Any:
        listener = Listener()
        yield self.broker.listen(F, listener)
        moments = [(yield self.broker.now())]
        for number in range(3):
            yield self.say(b"%d" % number)
            yield listener.wait_for(number + 1)
            moments += [listener.publications[-1].position, (yield self.broker.now())]
        self.assertEqual(sorted(moments), moments)
        for before, after in zip(moments[::2], moments[1::2], strict=False):
            self.assertLess(before, after)

    @inlineCallbacks
    def test_messages_have_their_own_positions_and_move_the_brokers(self) -> Any:
        listener = Listener()
        yield gatherResults([self.broker.listen(each, listener) for each in (F, JOHN)])
        for channel in (F, JOHN, F):
            yield self.say(b"hi", channel=channel)
        yield listener.wait_for(3)
        positions = [each.position for each in listener.publications]
        self.assertEqual(sorted(set(positions)), positions)
        self.assertTrue(all(each.marked for each in listener.publications))
        self.assertTrue(self.broker.position >= positions[-1])

    @inlineCallbacks
    def test_publishing_returns_the_position_that_listeners_see(self) -> Any:
        listener = Listener()
        yield gatherResults([self.broker.listen(each, listener) for each in (F, JOHN)])
        published = yield self.broker.publish([F, JOHN], b"hi", 60, None, KEPT)
        yield listener.wait_for(2)
        self.assertEqual(published.position, str(listener.publications[-1].position))
        self.assertEqual((yield self.publish(PLAIN, b"hi", history=None)).position, "")

    @inlineCallbacks
    def test_an_unmarked_message_has_the_position_before_it_and_a_mark_follows(self) -> Any:
        client, listener, other = Client(), Listener(), Listener()
        for each in (client, other):
            yield self.broker.listen(F, each)
        client.listener = listener
        yield self.say(b"marked")
        yield self.publish(F, b"unmarked", history=None)
        yield listener.wait_for(2)
        marked, unmarked = listener.publications
        self.assertEqual((marked.marked, unmarked.marked), (True, False))
        self.assertTrue(marked.position <= unmarked.position)
        position = yield client.told.get()
        self.assertLess(unmarked.position, position)
        yield self.broker.fence()
        self.assertEqual(len(other.heard), 2)  # a mark is for clients alone

    @inlineCallbacks
    def test_what_is_handed_over_is_behind_the_position(self) -> Any:
        listener, seen = Listener(), []
        yield self.broker.listen(F, listener)
        handed_over: Deferred[None] = Deferred()

        def look() -> None:
            seen.append((len(listener.heard), self.broker.position))
            handed_over.callback(None)

        published = gatherResults([self.publish(F, b"%d" % number) for number in range(3)])
        yield listener.wait_for(1)
        self.broker.when_handed_over(look)
        yield handed_over
        yield published
        ((count, position),) = seen
        behind = [each for each in listener.publications if each.position <= position]
        self.assertTrue(count >= len(behind))

    # What was missed

    @inlineCallbacks
    def test_everything_after_the_position_comes_whole_and_in_order_over_channels(self) -> Any:
        yield self.say(b"before")
        since = yield self.broker.now()
        expected = []
        for number in range(8):
            message = b"%d" % number
            yield self.say(message, channel=(F, JOHN)[number % 2])
            expected.append(message)
        missed = yield self.missed(since, F, JOHN)
        self.assertEqual(self.payloads(missed), expected)
        self.assertEqual([each.channel for each in missed.messages], [F, JOHN] * 4)
        self.assertEqual((missed.gaps, [*missed.persisted]), (frozenset(), []))
        self.assertEqual(missed.since, since)
        positions = [each.position for each in missed.messages]
        self.assertEqual(sorted(positions), positions)
        last = yield self.missed(positions[4], F, JOHN)
        self.assertEqual(self.payloads(last), expected[5:])

    @inlineCallbacks
    def test_nothing_is_missed_before_the_first_message_and_after_the_last(self) -> Any:
        first = yield self.broker.now()
        for channel in (F, PLAIN):
            missed = yield self.missed(first, channel)
            self.assertEqual((self.payloads(missed), missed.gaps), ([], frozenset()))
        self.assertTrue(missed.until >= first)
        yield self.say(b"1")
        since = yield self.broker.now()
        missed = yield self.missed(since, F, JOHN)
        self.assertEqual((self.payloads(missed), missed.gaps), ([], frozenset()))
        self.assertEqual((yield self.missed(missed.until)).messages, [])

    @inlineCallbacks
    def test_the_first_message_of_all_is_missed_and_no_gap(self) -> Any:
        since = yield self.broker.now()
        yield self.say(b"1", b"2")
        self.assertEqual(self.payloads((yield self.missed(since))), [b"1", b"2"])

    @inlineCallbacks
    def test_more_than_is_kept_is_a_gap_of_that_channel(self) -> Any:
        yield self.say(b"0")
        since = yield self.broker.now()
        yield self.say(*[b"%d" % number for number in range(1, 6)])
        self.assertEqual(len((yield self.missed(since)).messages), 5)
        yield self.say(b"6")
        yield self.say(b"to john", channel=JOHN)
        missed = yield self.missed(since, F, JOHN)
        self.assertEqual(missed.gaps, frozenset([F]))
        self.assertEqual(self.payloads(missed), [b"to john"])
        (persisted,) = missed.persisted
        self.assertEqual((persisted.channel, persisted.payload), (F, b"6"))
        self.assertTrue(missed.since < persisted.position <= missed.until)

    @inlineCallbacks
    def test_nobody_is_served_more_than_the_servers_own_size(self) -> Any:
        since = yield self.broker.now()
        for number in range(3):
            yield self.publish(SMALL, b"%d" % number, history=History(100, 60))
            # One more than the size is kept: it proves that nothing was before it.
            self.assertEqual((yield self.missed(since, SMALL)).gaps, frozenset())
        yield self.publish(SMALL, b"3", history=History(100, 60))
        self.assertEqual((yield self.missed(since, SMALL)).gaps, frozenset([SMALL]))

    @inlineCallbacks
    def test_the_next_publish_trims_to_a_lowered_size(self) -> Any:
        since = yield self.broker.now()
        yield self.say(b"1", b"2", b"3")
        yield self.publish(F, b"4", history=History(1, 60))
        self.assertEqual((yield self.missed(since)).gaps, frozenset([F]))

    @inlineCallbacks
    def test_what_has_expired_is_a_gap_unless_nothing_was_missed(self) -> Any:
        before = yield self.broker.now()
        yield self.publish(F, b"1", history=History(5, 0))
        after = yield self.broker.now()
        self.assertEqual((yield self.missed(before)).gaps, frozenset([F]))
        self.assertEqual((yield self.missed(after)).gaps, frozenset())
        yield self.say(b"2")
        missed = yield self.missed(after)
        self.assertEqual((self.payloads(missed), missed.gaps), ([b"2"], frozenset()))
        self.assertEqual((yield self.missed(before)).gaps, frozenset([F]))

    @inlineCallbacks
    def test_a_persisted_message_that_is_in_no_history_is_a_gap_for_those_who_missed_it(
        self,
    ) -> Any:
        yield self.say(b"kept")
        since = yield self.broker.now()
        yield self.publish(F, b"foreign", history=None)
        missed = yield self.missed(since)
        self.assertEqual((self.payloads(missed), missed.gaps), ([], frozenset([F])))
        self.assertEqual([each.payload for each in missed.persisted], [b"foreign"])
        after = yield self.broker.now()
        self.assertEqual((yield self.missed(after)).gaps, frozenset())
        # Those who ask in one turn are answered for themselves.
        early, late = yield gatherResults([self.missed(since), self.missed(after)])
        self.assertEqual((early.gaps, late.gaps), (frozenset([F]), frozenset()))
        # What is not persisted does not replace it.
        yield self.publish(F, b"kept, not persisted", expire=0)
        self.assertEqual((yield self.missed(since)).gaps, frozenset([F]))
        self.assertEqual(self.payloads((yield self.missed(after))), [b"kept, not persisted"])
        yield self.say(b"kept and persisted")
        self.assertEqual(
            self.payloads((yield self.missed(after))),
            [b"kept, not persisted", b"kept and persisted"],
        )

    @inlineCallbacks
    def assert_begins_anew(self, since: Position) -> Any:
        """The next message is a gap after ``since``, and none after a position behind it."""
        yield self.say(b"3")
        self.assertEqual((yield self.missed(since)).gaps, frozenset([F]))
        after = yield self.broker.now()
        yield self.say(b"4")
        self.assertEqual(self.payloads((yield self.missed(after))), [b"4"])

    @inlineCallbacks
    def test_what_follows_a_forgotten_history_never_continues_it(self) -> Any:
        yield self.say(b"1", b"2")
        since = yield self.broker.now()
        yield self.forget(F)
        self.assertEqual((yield self.missed(since)).gaps, frozenset())
        yield self.assert_begins_anew(since)

    @inlineCallbacks
    def test_the_count_begins_later_where_a_foreign_message_is_persisted(self) -> Any:
        since = yield self.broker.now()
        yield self.publish(F, b"foreign", history=None)
        between = yield self.broker.now()
        yield self.say(b"kept")
        self.assertEqual((yield self.missed(since)).gaps, frozenset([F]))
        # Another one may have been published after the position, before the first that is kept.
        self.assertEqual((yield self.missed(between)).gaps, frozenset([F]))

    @inlineCallbacks
    def test_without_a_history_a_persisted_message_after_the_position_is_a_gap(self) -> Any:
        before = yield self.broker.now()
        yield self.publish(PLAIN, b"plain", history=None)
        after = yield self.broker.now()
        missed = yield self.missed(before, PLAIN)
        self.assertEqual(missed.gaps, frozenset([PLAIN]))
        self.assertEqual([each.payload for each in missed.persisted], [b"plain"])
        missed = yield self.missed(after, PLAIN)
        self.assertEqual((missed.gaps, [*missed.persisted]), (frozenset(), []))

    @inlineCallbacks
    def test_a_position_that_is_good_for_nothing_is_a_gap_on_all_channels(self) -> Any:
        yield self.say(b"1", b"2")
        now = yield self.broker.now()
        for since in (
            None,
            now._replace(mark=now.mark ^ 1),
            now._replace(stamp=now.stamp + 86_400_000_000),
            now._replace(stamp=0),
        ):
            missed = yield self.missed(since, F, JOHN)
            self.assertEqual((self.payloads(missed), missed.gaps), ([], frozenset([F, JOHN])))
            (persisted,) = missed.persisted
            self.assertEqual(persisted.payload, b"2")
            self.assertTrue(missed.since < persisted.position <= missed.until)

    @inlineCallbacks
    def test_a_forgotten_message_is_a_gap_and_the_count_goes_on(self) -> Any:
        since = yield self.broker.now()
        yield self.say(b"1", b"2")
        yield self.forget(F)
        missed = yield self.missed(since)
        self.assertEqual((missed.gaps, [*missed.persisted]), (frozenset([F]), []))
        yield self.assert_begins_anew(since)

    @inlineCallbacks
    def test_persisted_messages_come_where_asked_for_unless_they_were_missed(self) -> Any:
        yield self.say(b"old", channel=JOHN)
        yield self.say(b"older")
        since = yield self.broker.now()
        self.assertEqual([*(yield self.missed(since, F, JOHN)).persisted], [])
        missed = yield self.missed(since, F, JOHN, persisted=True)
        found = {each.channel: each for each in missed.persisted}
        self.assertEqual({name: each.payload for name, each in found.items()}, {
            F: b"older", JOHN: b"old",
        })  # fmt: skip
        self.assertTrue(missed.since < found[JOHN].position < found[F].position <= since)
        yield self.say(b"new")
        missed = yield self.missed(since, F, JOHN, persisted=True)
        self.assertEqual(self.payloads(missed), [b"new"])
        self.assertEqual([each.payload for each in missed.persisted], [b"old"])

    @inlineCallbacks
    def test_those_who_ask_together_are_answered_for_themselves(self) -> Any:
        moments = []
        for number in range(4):
            moments.append((yield self.broker.now()))
            yield self.say(b"%d" % number)
        answers = yield gatherResults([self.missed(each) for each in moments])
        for number, missed in enumerate(answers):
            expected = [b"%d" % each for each in range(number, 4)]
            self.assertEqual(self.payloads(missed), expected)

    @inlineCallbacks
    def test_what_was_published_until_then_has_arrived(self) -> Any:
        listener = Listener()
        yield self.broker.listen(F, listener)
        since = yield self.broker.now()
        yield gatherResults([self.publish(F, b"%d" % number) for number in range(3)])
        missed = yield self.missed(since)
        self.assertEqual(len(listener.heard), 3)
        self.assertEqual([each.position for each in missed.messages],
                         [each.position for each in listener.publications])  # fmt: skip
        self.assertTrue(self.broker.position >= missed.until)

    # Outages

    @inlineCallbacks
    def test_a_loss_is_told_when_all_that_had_arrived_is_handed_over(self) -> Any:
        listener, told = Listener(), []
        yield self.broker.listen(F, listener)
        yield self.say(b"1")
        yield listener.wait_for(1)
        lost: Deferred[None] = Deferred()

        def tell() -> None:
            told.append((len(listener.heard), self.broker.position))
            if not lost.called:
                lost.callback(None)

        remove = self.broker.on_lost(tell)
        self.broker.on_lost(lambda: told.append("removed"))()
        yield self.lose_connection()
        yield lost
        yield self.restored()
        ((count, position),) = told
        self.assertEqual(count, 1)
        self.assertTrue(position >= listener.publications[0].position)
        remove()
        yield self.lose_connection()
        yield self.restored()
        self.assertEqual(len(told), 1)

    @inlineCallbacks
    def test_an_outage_is_healed_from_the_histories(self) -> Any:
        listener = Listener()
        yield gatherResults([self.broker.listen(each, listener) for each in (F, JOHN, PLAIN)])
        yield self.say(b"0")
        yield listener.wait_for(1)
        yield self.lose_connection()
        self.publish_elsewhere(PLAIN, b"plain", 60, None)
        expected = [(F, b"0")]
        for number in range(1, 5):
            channel, message = (F, JOHN)[number % 2], b"%d" % number
            self.publish_elsewhere(channel, message, 0, KEPT)
            expected.append((channel, message))
        yield self.restored()
        yield self.say(b"5")
        yield listener.wait_for(7)
        heard = [each for each in listener.heard if each[0] != PLAIN]
        self.assertEqual(heard, [*expected, (F, b"5")])
        self.assertEqual(listener.heard.count((PLAIN, b"plain")), 1)
        positions = [each.position for each in listener.publications if each.channel != PLAIN]
        self.assertEqual(sorted(set(positions)), positions)

    @inlineCallbacks
    def test_what_a_history_cannot_heal_brings_the_persisted_message(self) -> Any:
        listener = Listener()
        yield self.broker.listen(F, listener)
        yield self.say(b"0")
        yield listener.wait_for(1)
        yield self.lose_connection()
        for number in range(1, 8):
            self.publish_elsewhere(F, b"%d" % number, 60, KEPT)
        yield self.restored()
        yield self.say(b"8")
        yield listener.wait_for(3)
        self.assertEqual([payload for _, payload in listener.heard], [b"0", b"7", b"8"])


class MemoryHistoryTests(HistoryContract, TestCase):
    def setUp(self) -> None:
        self.broker = MemoryBroker(reactor, history=RULES)
        self.addCleanup(self.broker.lose_connection)  # ends its timers

    def publish_elsewhere(
        self, channel: bytes, message: bytes, expire: int, history: History | None
    ) -> None:
        self.broker.publish_elsewhere([channel], message, expire, kept=history is not None)

    def forget(self, channel: bytes) -> Deferred[Any]:
        self.broker.forget_elsewhere([channel])
        return succeed(None)

    def lose_connection(self) -> Deferred[None]:
        self.broker.lose_connection()
        return succeed(None)

    def restored(self) -> Deferred[None]:
        self.broker.restore()
        return self.broker.when_available()


class DelayedMemoryHistoryTests(MemoryHistoryTests):
    """The contract, kept by a broker whose answers and messages take a while."""

    def setUp(self) -> None:
        super().setUp()
        self.broker.delay = 0.001


class RedisHistoryTests(HistoryContract, TestCase):
    timeout = 60

    def setUp(self) -> Deferred[None]:
        self.redis = shared_redis()
        self.broker = start_broker(self, self.redis.address, history=RULES)
        return self.broker.when_available()

    def publish_elsewhere(
        self, channel: bytes, message: bytes, expire: int, history: History | None
    ) -> None:
        self.redis.command(*kept_command("", [channel], message, expire, Kept(history)))

    def forget(self, channel: bytes) -> Deferred[Any]:
        return self.broker.commands.forget([channel])

    def lose_connection(self) -> Deferred[None]:
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        return succeed(None)

    @inlineCallbacks
    def restored(self) -> Any:
        yield self.assertFailure(self.broker.fence(), BrokerUnavailable)
        yield self.broker.when_available()

    @inlineCallbacks
    def test_a_message_that_never_expires_is_in_no_history_either(self) -> Any:
        since = yield self.broker.now()
        self.redis.command("SET", F, "of another program")
        missed = yield self.missed(since)
        self.assertEqual(missed.gaps, frozenset([F]))
        self.assertEqual([each.payload for each in missed.persisted], [b"of another program"])

    @inlineCallbacks
    def test_those_who_ask_in_one_turn_cost_one_read(self) -> Any:
        since = yield self.broker.now()
        yield self.say(b"1")
        before = self.calls("eval")
        answers = yield gatherResults([self.missed(since) for _ in range(50)])
        self.assertEqual(self.calls("eval"), before + 1)
        self.assertEqual(len({each.messages[0] for each in answers}), 1)

    def calls(self, name: str) -> int:
        statistics = self.redis.command("INFO", "commandstats")
        return sum(
            each["calls"]
            for command, each in statistics.items()
            if command.startswith(f"cmdstat_{name}")
        )

    @inlineCallbacks
    def test_another_programs_message_in_the_same_millisecond_is_a_gap(self) -> Any:
        for kept, foreign, gap in (
            (b"xyz", b"yz", True), (b"", b"x", True), (b"", b"", False), (b"x y", b"x y", False),
        ):  # fmt: skip
            since = yield self.broker.now()
            yield self.say(kept)
            self.redis.command("SET", F, foreign, "KEEPTTL")
            self.assertEqual(bool((yield self.missed(since)).gaps), gap, kept)
