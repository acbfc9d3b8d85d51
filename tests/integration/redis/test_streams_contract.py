"""One contract for streams and for what stands beside a channel, kept by the real broker and by the
one for tests.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.trial.unittest import TestCase

from tests.support.brokers import Listener, start_broker
from tests.support.redis import RedisServer
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Arrival, ClientMessage, Joined, Publication
from ws4redis_tx.core.names import side_channel
from ws4redis_tx.core.positions import History, Kept, Stream, Wanted
from ws4redis_tx.delivery.direct import CAREFUL
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.redis.history.publishing import kept_command
from ws4redis_tx.testing import MemoryBroker

RULES = (("f", 5, 60), ("g", 5, 60))
F, G, PLAIN = b"broadcast:f", b"broadcast:g", b"broadcast:plain"
KEPT = History(5, 60)
INFO = b'{"user":"john","client":"1"}'


class Client(Feed):
    """A client's feed: only those hear of joins and leaves."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.direct = CAREFUL

    def deliver(self, publication: Publication | Joined) -> None:
        for each in publication.parts:
            self.listener.deliver(each)


class StreamContract:
    """``self.broker`` is available, and has the history ``RULES``."""

    broker: Any

    def publish(self, message: bytes, channel: bytes = F, **options: Any) -> Any:
        options.setdefault("history", None if channel == PLAIN else KEPT)
        return self.broker.publish([channel], message, 60, **options)

    @inlineCallbacks
    def say(self, *numbers: int, **options: Any) -> Any:
        for number in numbers:
            yield self.publish(b"%d" % number, **options)

    def publish_elsewhere(self, channel: bytes, message: bytes, info: bytes) -> None:
        """Publish with a history, as another process does, also in an outage."""
        raise NotImplementedError

    def tell(self, side: bytes, message: bytes) -> Deferred[Any]:
        """Publish ``message`` beside a channel, as it is."""
        told: Deferred[Any] = self.broker.publish([side], message, 0)
        return told

    def forget(self, channel: bytes) -> Deferred[Any]:
        raise NotImplementedError

    def lose_connection(self) -> Deferred[None]:
        raise NotImplementedError

    def restored(self) -> Deferred[None]:
        raise NotImplementedError

    @inlineCallbacks
    def stream(self, channel: bytes = F, size: int = 5, **wanted: Any) -> Any:
        """Fire with a stream that was read alone, and is the same as one that was not."""
        question = Wanted(channel, size, **wanted)
        shared, alone = yield gatherResults(
            [self.broker.stream(question), self.broker.stream(question, alone=True)]
        )
        self.assertEqual((shared.top, shared.began), (alone.top, alone.began))
        self.assertEqual(self.found(shared, question), self.found(alone, question))
        return alone

    def found(self, stream: Stream, wanted: Wanted) -> list[tuple[int, bytes]]:
        return [(each.offset, each.payload) for each in stream.between(wanted)]

    @inlineCallbacks
    def between(self, size: int = 5, **wanted: Any) -> Any:
        """Fire with the numbers of the messages that were asked for."""
        stream = yield self.stream(size=size, **wanted)
        return [number for number, _ in self.found(stream, Wanted(F, size, **wanted))]

    @inlineCallbacks
    def after(self, number: int, *, size: int = 5, channel: bytes = F) -> Any:
        """Fire with the payloads after a number, ``None`` if they are not known."""
        stream = yield self.stream(channel, size, after=number)
        found = stream.after(number, size)
        return None if found is None else [each.payload for each in found]

    # Numbers

    @inlineCallbacks
    def test_a_channel_without_a_message_has_an_empty_stream(self) -> Any:
        stream = yield self.stream()
        self.assertEqual((stream.channel, stream.top, stream.began), (F, 0, 0))
        self.assertEqual(stream.after(0, 5), [])
        self.assertIsNone(stream.after(1, 5))

    @inlineCallbacks
    def test_messages_are_numbered_from_one_on_each_channel(self) -> Any:
        yield self.say(1, 2)
        yield self.say(1, channel=G)
        first, second = yield gatherResults([self.stream(F), self.stream(G)])
        self.assertEqual((first.top, second.top), (2, 1))
        self.assertEqual(self.found(first, Wanted(F, 5)), [(1, b"1"), (2, b"2")])
        (message, _) = first.publications(first._entries)
        self.assertEqual((message.position.stamp, message.began), (first.began, first.began))
        self.assertTrue(message.replayed)

    @inlineCallbacks
    def test_what_follows_a_number_is_whole_or_not_known(self) -> Any:
        yield self.say(*range(1, 9))  # of which 3 is the proof, and 4 to 8 are kept
        for number, expected in {
            8: [], 7: [b"8"], 3: [b"4", b"5", b"6", b"7", b"8"], 2: None, 0: None, 9: None,
        }.items():  # fmt: skip
            self.assertEqual((yield self.after(number)), expected, number)
        self.assertEqual((yield self.after(6, size=2)), [b"7", b"8"])
        self.assertIsNone((yield self.after(5, size=2)))

    @inlineCallbacks
    def test_the_oldest_or_the_newest_are_read_as_many_as_wanted(self) -> Any:
        yield self.say(*range(1, 9))
        for wanted, expected in (
            ({}, [4, 5, 6, 7, 8]),
            ({"most": 2}, [4, 5]),
            ({"after": 5}, [6, 7, 8]),
            ({"after": 5, "most": 2}, [6, 7]),
            ({"after": 8}, []),
            ({"after": 80}, []),
            ({"before": 1 << 53}, [4, 5, 6, 7, 8]),
            ({"before": 1 << 53, "most": 2}, [7, 8]),
            ({"before": 7, "most": 2}, [5, 6]),
            ({"before": 7}, [4, 5, 6]),
            ({"before": 2}, []),
            ({"before": 1}, []),
            ({"size": 2}, [7, 8]),
            ({"size": 2, "before": 8}, [7]),
        ):
            self.assertEqual((yield self.between(**wanted)), expected, wanted)

    @inlineCallbacks
    def test_forgetting_empties_it_and_the_count_goes_on(self) -> Any:
        yield self.say(1, 2)
        before = yield self.stream()
        yield self.forget(F)
        stream = yield self.stream()
        self.assertEqual((stream.top, stream.began), (2, before.began))
        self.assertEqual((yield self.between()), [])
        self.assertEqual((yield self.after(2)), [])
        self.assertIsNone((yield self.after(1)))
        yield self.say(3)
        self.assertEqual((yield self.between()), [3])
        self.assertIsNone((yield self.after(1)))
        self.assertIsNone((yield self.after(2)))  # nothing proves that it was the last before
        self.assertEqual((yield self.after(3)), [])

    @inlineCallbacks
    def test_what_has_expired_is_not_known_and_the_count_goes_on(self) -> Any:
        yield self.say(1, 2)
        yield self.say(3, history=History(5, 0))
        stream = yield self.stream()
        self.assertEqual((stream.top, (yield self.between())), (3, []))
        self.assertEqual((yield self.after(3)), [])
        self.assertIsNone((yield self.after(2)))
        yield self.say(4)
        self.assertEqual((yield self.after(3)), [b"4"])  # it is proven that 3 was before
        self.assertIsNone((yield self.after(2)))

    @inlineCallbacks
    def test_the_count_begins_at_two_where_an_older_message_may_have_been(self) -> Any:
        yield self.publish(b"foreign", history=None)
        yield self.say(2)
        stream = yield self.stream()
        self.assertEqual((stream.top, (yield self.between())), (2, [2]))
        self.assertIsNone((yield self.after(0)))

    # Epochs

    @inlineCallbacks
    def test_an_epoch_fits_the_stream_that_it_was_given_for(self) -> Any:
        empty = yield self.stream()
        self.assertTrue(empty.fits(empty.epoch))
        yield self.say(1)
        stream = yield self.stream()
        self.assertEqual(stream.epoch, stream.began)
        self.assertTrue(stream.fits(stream.epoch))
        self.assertTrue(stream.fits(empty.epoch))  # nothing was there by then
        yield self.forget(F)
        yield self.say(2)
        later = yield self.stream()
        self.assertEqual(later.epoch, stream.epoch)
        self.assertTrue(later.fits(empty.epoch))

    @inlineCallbacks
    def test_an_epoch_of_another_time_or_data_set_does_not(self) -> Any:
        yield self.say(1)
        stream = yield self.stream()
        for epoch in (0, 1 << 60, stream.epoch + 1, stream.until.stamp):
            self.assertFalse(stream.fits(epoch), epoch)
        empty = yield self.stream(G)
        for epoch in (0, empty.epoch + 60_000_000):
            self.assertFalse(empty.fits(epoch), epoch)

    @inlineCallbacks
    def test_what_was_published_until_then_has_arrived(self) -> Any:
        listener = Listener()
        yield self.broker.listen(F, listener)
        published = [self.publish(b"%d" % number) for number in range(3)]
        stream = yield self.broker.stream(Wanted(F, 5), alone=True)
        behind = [each for each in listener.publications if each.position <= stream.until]
        self.assertEqual(len(behind), stream.top)
        yield gatherResults(published)
        stream = yield self.stream()
        self.assertEqual(len(listener.heard), stream.top)

    # What stands beside a channel

    @inlineCallbacks
    def test_a_message_has_its_number_and_its_streams_beginning(self) -> Any:
        listener = Listener()
        yield self.broker.listen(F, listener)
        yield self.say(1, 2)
        yield listener.wait_for(2)
        stream = yield self.stream()
        for number, each in enumerate(listener.publications, 1):
            self.assertEqual((each.offset, each.began), (number, stream.began))
        self.assertEqual(listener.publications[0].position.stamp, stream.began)

    @inlineCallbacks
    def test_a_message_without_a_marker_has_no_number(self) -> Any:
        listener = Listener()
        yield self.broker.listen(F, listener)
        yield self.say(1)
        yield self.publish(b"foreign", history=None)
        yield self.say(2)
        yield listener.wait_for(3)
        self.assertEqual([each.offset for each in listener.publications], [1, 0, 2])

    @inlineCallbacks
    def test_info_comes_with_the_message_and_is_in_the_history(self) -> Any:
        listener = Listener()
        yield self.broker.listen(F, listener)
        yield self.publish(ClientMessage(b"a payload", "f"), info=INFO)  # as hooks return it
        yield self.publish(b"another")
        yield listener.wait_for(2)
        told = [(each.payload, each.info, each.offset) for each in listener.publications]
        self.assertEqual(told, [(b"a payload", INFO, 1), (b"another", b"", 2)])
        stream = yield self.stream()
        read = [(each.payload, each.info) for each in stream.between(Wanted(F, 5))]
        self.assertEqual(read, [(b"a payload", INFO), (b"another", b"")])
        since = listener.publications[0].position
        missed = yield self.broker.missed([F], since._replace(stamp=since.stamp - 1))
        read = [(each.payload, each.info) for each in missed.messages]
        self.assertEqual(read, [(b"a payload", INFO), (b"another", b"")])

    @inlineCallbacks
    def test_without_a_history_info_is_heard_by_those_who_listen_beside(self) -> Any:
        knowing, side = Listener(), side_channel("", PLAIN)
        yield self.broker.listen(PLAIN, knowing)
        yield self.publish(b"1", channel=PLAIN, info=INFO)
        yield knowing.wait_for(1)
        yield self.broker.listen(side, knowing)
        yield self.publish(b"2", channel=PLAIN, info=INFO)
        yield self.publish(b"3", channel=PLAIN)
        yield knowing.wait_for(3)
        self.broker.unlisten(side, knowing)
        yield self.publish(b"4", channel=PLAIN, info=INFO)
        yield knowing.wait_for(4)
        told = [(each.payload, each.info, each.offset) for each in knowing.publications]
        self.assertEqual(told, [(b"1", b"", 0), (b"2", INFO, 0), (b"3", b"", 0), (b"4", b"", 0)])

    @inlineCallbacks
    def test_nobody_who_listens_beside_hears_markers_and_joins_come_in_order(self) -> Any:
        for channel in (F, PLAIN):
            client, side = Client(), side_channel("", channel)
            listener, others = client.listener, Listener()
            for each in (client, others):
                yield self.broker.listen(side, each)
                yield self.broker.listen(channel, each)
            yield self.tell(side, b"join " + INFO)
            yield self.publish(b"1", channel=channel, info=INFO)
            yield self.tell(side, b"leave " + INFO)
            yield self.tell(side, b"something else")
            yield self.publish(b"2", channel=channel)
            yield listener.wait_for(4)
            self.assertEqual(
                [(each.channel, each.payload) for each in listener.publications],
                [(side, INFO), (channel, b"1"), (side, INFO), (channel, b"2")],
            )
            join, _, leave, _ = listener.publications
            for arrival, event in ((join, "join"), (leave, "leave")):
                assert isinstance(arrival, Arrival)
                self.assertEqual((arrival.event, arrival.number), (event, 0))
            yield others.wait_for(2)
            self.assertEqual(others.heard, [(channel, b"1"), (channel, b"2")])

    @inlineCallbacks
    def test_the_last_who_listens_beside_takes_no_markers_from_a_history(self) -> Any:
        listener, other, side = Listener(), Client(), side_channel("", F)
        yield self.broker.listen(F, listener)
        yield self.broker.listen(side, other)
        self.broker.unlisten(side, other)
        yield self.say(1)
        yield listener.wait_for(1)
        self.assertEqual(listener.publications[0].offset, 1)
        yield self.broker.listen(side, other)
        self.broker.unlisten(F, listener)
        yield self.tell(side, b"join " + INFO)
        yield other.listener.wait_for(1)
        self.assertEqual(other.listener.heard, [(side, INFO)])

    # Outages

    @inlineCallbacks
    def test_an_outage_is_healed_with_numbers_and_info(self) -> Any:
        yield self.say(1)
        stream = yield self.stream()
        yield self.lose_connection()
        for number in (2, 3):
            self.publish_elsewhere(F, b"%d" % number, INFO)
        yield self.restored()
        missed = yield self.broker.missed([F], stream.until)
        found = [(each.offset, each.payload, each.info) for each in missed.messages]
        self.assertEqual(found, [(2, b"2", INFO), (3, b"3", INFO)])
        after = yield self.stream(after=1)
        self.assertEqual([each.offset for each in after.after(1, 5)], [2, 3])
        self.assertEqual(after.epoch, stream.epoch)

    @inlineCallbacks
    def test_one_that_is_longer_than_the_history_is_a_gap(self) -> Any:
        yield self.say(1)
        stream = yield self.stream()
        yield self.lose_connection()
        for number in range(2, 10):
            self.publish_elsewhere(F, b"%d" % number, b"")
        yield self.restored()
        missed = yield self.broker.missed([F], stream.until)
        self.assertEqual(([*missed.messages], missed.gaps), ([], frozenset([F])))
        self.assertIsNone((yield self.after(1)))
        self.assertEqual((yield self.stream()).top, 9)

    @inlineCallbacks
    def test_listeners_go_on_with_numbers_after_an_outage(self) -> Any:
        listener, side = Listener(), side_channel("", PLAIN)
        for channel in (F, PLAIN, side):
            yield self.broker.listen(channel, listener)
        yield self.lose_connection()
        yield self.restored()
        yield self.say(1)
        yield self.publish(b"2", channel=PLAIN, info=INFO)
        yield listener.wait_for(2)
        told = [(each.payload, each.offset, each.info) for each in listener.publications]
        self.assertEqual(told, [(b"1", 1, b""), (b"2", 0, INFO)])

    @inlineCallbacks
    def test_nobody_reads_in_an_outage(self) -> Any:
        yield self.lose_connection()
        for alone in (True, False):
            yield self.assertFailure(
                self.broker.stream(Wanted(F, 5), alone=alone), BrokerUnavailable
            )


class MemoryStreamTests(StreamContract, TestCase):
    def setUp(self) -> None:
        self.broker = MemoryBroker(reactor, history=RULES)
        self.addCleanup(self.broker.lose_connection)  # ends its timers

    def publish_elsewhere(self, channel: bytes, message: bytes, info: bytes) -> None:
        self.broker.publish_elsewhere([channel], message, info=info)

    def forget(self, channel: bytes) -> Deferred[Any]:
        self.broker.forget_elsewhere([channel])
        return succeed(None)

    def lose_connection(self) -> Deferred[None]:
        self.broker.lose_connection()
        return succeed(None)

    def restored(self) -> Deferred[None]:
        self.broker.restore()
        return self.broker.when_available()


class DelayedMemoryStreamTests(MemoryStreamTests):
    """The contract, kept by a broker whose answers and messages take a while."""

    def setUp(self) -> None:
        super().setUp()
        self.broker.delay = 0.001


class RedisStreamTests(StreamContract, TestCase):
    timeout = 60

    def setUp(self) -> Deferred[None]:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.broker = start_broker(self, self.redis.address, history=RULES)
        return self.broker.when_available()

    def publish_elsewhere(self, channel: bytes, message: bytes, info: bytes) -> None:
        self.redis.command(*kept_command("", [channel], message, 0, Kept(KEPT, info=info)))

    def forget(self, channel: bytes) -> Deferred[Any]:
        return self.broker.commands.forget([channel])

    def lose_connection(self) -> Deferred[None]:
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        return succeed(None)

    @inlineCallbacks
    def restored(self) -> Any:
        yield self.assertFailure(self.broker.fence(), BrokerUnavailable)
        yield self.broker.when_available()
