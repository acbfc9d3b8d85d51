"""Publishing with a history: what it leaves in Redis, and what it does when something is amiss."""

from __future__ import annotations

import time
from typing import Any

import valkey
from twisted.internet.defer import inlineCallbacks

from tests.support.brokers import AWKWARD, BrokerTestCase, start_broker
from tests.support.logs import log_lines
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.messages import Published
from ws4redis_tx.core.positions import History, Kept, read_position
from ws4redis_tx.redis.history.publishing import PUBLISH_KEPT

F, G = b"broadcast:f", b"user:john:f"
KEPT = Kept(History(3, 60))


class HistoryTestCase(BrokerTestCase):
    def publish(self, *channels: bytes, message: bytes = b"hi", kept: Kept = KEPT) -> Any:
        return self.broker.commands.publish(channels, message, 60, kept)

    def entries(self, channel: bytes = F) -> list[tuple[int, int, bytes]]:
        """Stamp, number and payload of what is kept."""
        entries = self.redis.command("LRANGE", b"stream:" + channel, 0, -1)
        found = []
        for entry in entries:
            version, stamp, number, payload = entry.split(b" ", 3)
            if (version, payload) == (b"0", b""):
                continue  # the last one of a history that is gone
            self.assertEqual(version, b"1")
            found.append((int(stamp), int(number), payload))
        return found

    def numbers(self, channel: bytes = F) -> list[int]:
        return [number for _, number, _ in self.entries(channel)]


class LayoutTests(HistoryTestCase):
    @inlineCallbacks
    def test_one_more_than_the_size_is_kept_and_each_in_its_bytes(self) -> Any:
        for message in AWKWARD:
            yield self.publish(F, message=message)
        self.assertEqual([payload for *_, payload in self.entries()], AWKWARD[-4:])
        self.assertEqual(self.numbers(), [len(AWKWARD) - each for each in (3, 2, 1, 0)])
        self.assertEqual(self.redis.command("GET", F), AWKWARD[-1])
        self.assertTrue(0 < self.redis.command("TTL", b"stream:" + F) <= 60)

    @inlineCallbacks
    def test_stamps_are_redis_own_clock_and_increase_over_all_channels(self) -> Any:
        before = time.time()
        positions = []
        for _ in range(50):
            positions.append((yield self.publish(F, G)).position)
        stamps = [stamp for stamp, *_ in self.entries(F) + self.entries(G)]
        self.assertEqual(len(set(stamps)), len(stamps))
        read = [read_position(each) for each in positions]
        self.assertEqual(sorted(read), read)
        self.assertEqual(len({each.stamp for each in read}), 50)
        self.assertEqual(len({each.mark for each in read}), 1)
        self.assertEqual(read[-1].stamp, max(stamps))
        self.assertTrue(before - 1 < read[0].stamp / 1e6 < time.time() + 1)
        self.assertEqual(int(self.redis.command("GET", "last")), max(stamps))

    @inlineCallbacks
    def test_the_marker_directly_precedes_its_message(self) -> Any:
        with valkey.Valkey(port=self.redis.port) as client, client.pubsub() as heard:
            for channel in (b"side:" + F, F, b"side:" + G, G):
                heard.subscribe(channel)
                self.assertEqual(heard.get_message(timeout=20)["type"], "subscribe")
            published = yield self.publish(F, G)
            yield self.publish(F, message=b"again")
            messages = [heard.get_message(timeout=20) for _ in range(6)]
        names = [each["channel"] for each in messages]
        self.assertEqual(names, [b"side:" + F, F, b"side:" + G, G, b"side:" + F, F])
        stamp, number, began = messages[0]["data"].split()
        self.assertEqual((number, began), (b"1", stamp))
        self.assertEqual(messages[4]["data"].split()[1:], [b"2", stamp])
        self.assertEqual(self.redis.command("GET", b"pos:" + F), messages[4]["data"])
        self.assertEqual(int(self.redis.command("GET", b"at:" + F)), self.entries()[-1][0])
        self.assertEqual(published, 2)  # the markers' subscribers do not count
        self.assertEqual(
            read_position(published.position).stamp, int(messages[2]["data"].split()[0])
        )

    @inlineCallbacks
    def test_what_is_not_persisted_is_kept_all_the_same(self) -> Any:
        yield self.broker.commands.publish([F], b"hi", 0, KEPT)
        self.assertEqual(self.numbers(), [1])
        self.assertEqual(self.redis.command("EXISTS", F, b"at:" + F), 0)

    @inlineCallbacks
    def test_without_a_history_nothing_stands_beside_but_the_stamp(self) -> Any:
        published = yield self.broker.commands.publish([F], b"hi", 60)
        self.assertIsInstance(published, Published)
        self.assertEqual(published.position, "")
        self.assertEqual(sorted(self.redis.command("KEYS", "*")), [b"at:broadcast:f", F])

    @inlineCallbacks
    def test_the_next_publish_trims_to_a_lowered_size(self) -> Any:
        for _ in range(100):
            yield self.publish(F, kept=Kept(History(100, 60)))
        yield self.publish(F, kept=Kept(History(10, 60)))
        self.assertEqual(len(self.entries()), 11)

    @inlineCallbacks
    def test_names_have_the_prefix_and_the_tenant(self) -> Any:

        broker = start_broker(self, self.redis.address, "site")
        yield broker.when_available()
        channel = b"site:t:acme:broadcast:f"
        yield broker.commands.publish([channel], b"hi", 60, Kept(History(3, 60), "once"))
        names = sorted(self.redis.command("KEYS", "*"))
        (once,) = [name for name in names if name.startswith(b"site:ctl:published:")]
        self.assertEqual(
            sorted(set(names) - {once}),
            [
                b"site:birth", b"site:last", b"site:t:acme:at:site:t:acme:broadcast:f", channel,
                b"site:t:acme:pos:site:t:acme:broadcast:f",
                b"site:t:acme:stream:site:t:acme:broadcast:f",
            ],
        )  # fmt: skip

    @inlineCallbacks
    def test_the_documented_script_is_enough_for_another_program(self) -> Any:
        yield self.publish(F)
        answer = self.redis.command(
            "EVAL", PUBLISH_KEPT, 6, "last", "birth", F, b"at:" + F, b"pos:" + F, b"stream:" + F,
            "from elsewhere", 60, 3, 60, 2592000, 1, 600, "", b"side:" + F,
        )  # fmt: skip
        self.assertEqual([payload for *_, payload in self.entries()], [b"hi", b"from elsewhere"])
        self.assertEqual(int(answer[0]), self.entries()[-1][0])
        self.assertEqual(answer[2], 0)


class CountTests(HistoryTestCase):
    """The count of a channel's messages, which tells whether anything is missing before one."""

    @inlineCallbacks
    def test_it_goes_on_after_forgetting(self) -> Any:
        for _ in range(2):
            yield self.publish(F, G)
        began = self.redis.command("GET", b"pos:" + F).split()[2]
        yield self.broker.commands.forget([F])
        self.assertEqual(self.redis.command("EXISTS", F, b"at:" + F), 0)
        self.assertEqual((self.numbers(F), self.numbers(G)), ([], [1, 2]))
        yield self.publish(F)
        self.assertEqual(self.numbers(), [3])
        self.assertEqual(self.redis.command("GET", b"pos:" + F).split()[2], began)

    @inlineCallbacks
    def test_it_begins_at_two_where_older_messages_may_have_been(self) -> Any:
        yield self.broker.commands.publish([F], b"of an old publisher", 60)
        yield self.publish(F, G)
        self.assertEqual((self.numbers(F), self.numbers(G)), ([2], [1]))
        self.redis.command("DEL", b"pos:" + G, b"pos:" + F)  # as an eviction does
        yield self.publish(F, G)
        self.assertEqual((self.numbers(F), self.numbers(G)), ([2], [2]))

    @inlineCallbacks
    def test_stamps_go_on_after_those_that_were_given_out_by_a_faster_clock(self) -> Any:
        ahead = int(time.time() * 1e6) + 3600 * 10**6
        self.redis.command("SET", "last", ahead)
        yield self.publish(F, G)
        yield self.publish(F)
        self.assertEqual([stamp for stamp, *_ in self.entries()], [ahead + 1, ahead + 3])
        self.assertEqual(read_position((yield self.broker.commands.position())).stamp, ahead + 3)


class PositionTests(HistoryTestCase):
    @inlineCallbacks
    def test_it_lies_between_what_was_published_before_and_what_is_published_after(self) -> Any:
        positions = [(yield self.broker.commands.position())]
        for _ in range(20):
            positions.append((yield self.publish(F)).position)
            positions.append((yield self.broker.commands.position()))
        read = [read_position(each) for each in positions]
        self.assertEqual(sorted(read), read)
        self.assertTrue(
            all(before < after for before, after in zip(read[::2], read[1::2], strict=False))
        )

    @inlineCallbacks
    def test_a_data_set_that_begins_anew_has_another_mark(self) -> Any:
        first = read_position((yield self.broker.commands.position()))
        self.assertEqual(read_position((yield self.publish(F)).position).mark, first.mark)
        self.redis.command("FLUSHALL")
        second = read_position((yield self.publish(F)).position)
        self.assertNotEqual(second.mark, first.mark)


class OnceTests(HistoryTestCase):
    @inlineCallbacks
    def test_a_second_publish_does_nothing_and_returns_the_result_of_the_first(self) -> Any:
        yield self.broker.listen(F, self.listener)
        for kept in Kept(History(3, 60), "paid"), Kept(None, "paid, without a history"):
            first = yield self.publish(F, G, message=b"1", kept=kept)
            self.broker.unlisten(F, self.listener)
            second = yield self.publish(F, G, message=b"2", kept=kept)
            self.assertEqual((first, first.position), (second, second.position))
            self.assertEqual(first, 1)
            self.assertEqual(self.redis.command("GET", F), b"1")
            yield self.broker.listen(F, self.listener)
        self.assertEqual(self.numbers(), [1])
        for key in self.redis.command("KEYS", "ctl:published:*"):
            self.assertTrue(0 < self.redis.command("TTL", key) <= 600)

    @inlineCallbacks
    def test_another_audience_or_key_is_another_publish(self) -> Any:
        for channels, once in (([F], "a"), ([F], "b"), ([F, G], "a"), ([G], "a")):
            yield self.publish(*channels, kept=Kept(History(9, 60), once))
        self.assertEqual((self.numbers(F), self.numbers(G)), ([1, 2, 3], [1, 2]))

    @inlineCallbacks
    def test_of_a_publish_that_failed_in_part_the_rest_is_published(self) -> Any:
        kept = Kept(History(9, 60), "paid")
        self.redis.command("SET", b"stream:" + G, "no list")
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.publish(F, G, kept=kept)
        self.assertTrue(caught.exception.maybe_published)
        self.redis.command("DEL", b"stream:" + G)
        yield self.publish(F, G, kept=kept)
        yield self.publish(F, G, kept=kept)
        self.assertEqual((self.numbers(F), len(self.numbers(G))), ([1], 1))

    @inlineCallbacks
    def test_many_channels_take_several_scripts_and_each_of_them_once(self) -> Any:
        channels = [b"user:%d:f" % number for number in range(250)]
        for _ in range(2):
            published = yield self.publish(*channels, kept=Kept(History(9, 60), "all"))
        self.assertEqual({tuple(self.numbers(each)) for each in channels}, {(1,)})
        last = max(self.entries(each)[0][0] for each in channels)
        self.assertEqual(read_position(published.position).stamp, last)


class RefusedTests(HistoryTestCase):
    @inlineCallbacks
    def test_a_key_of_another_type_harms_its_own_channel_alone(self) -> Any:
        self.redis.command("SET", b"stream:" + F, "no list")
        for name in ("last", "birth", b"pos:" + G, b"at:" + G):
            self.redis.command("RPUSH", name, "no string")
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.publish(F, G)
        self.assertIn("WRONGTYPE", str(caught.exception))
        self.assertEqual(len(self.numbers(G)), 1)
        self.assertIsNone(self.redis.command("GET", F))
        self.assertEqual((yield self.publish(G)), 0)

    @inlineCallbacks
    def test_numbers_that_are_none_are_none(self) -> Any:
        for rubbish in ("nan", "1e999", "0x10", "9" * 40, "-5", " ", "1 2 3"):
            self.redis.command("FLUSHALL")
            for name in ("last", "birth", b"pos:" + F):
                self.redis.command("SET", name, rubbish)
            before = time.time()
            stamp = read_position((yield self.publish(F)).position).stamp
            self.assertTrue(before - 1 < stamp / 1e6 < time.time() + 1, rubbish)

    @inlineCallbacks
    def test_when_memory_is_full_nothing_is_published(self) -> Any:
        yield self.broker.listen(F, self.listener)
        self.redis.command("CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction")
        with self.assertRaises(BrokerRefused) as caught:
            yield self.publish(F, G)
        self.assertIn("OOM", str(caught.exception))
        self.redis.command("CONFIG", "SET", "maxmemory", "0")
        yield self.publish(F, message=b"later")
        yield self.listener.wait_for(1)
        self.assertEqual(self.listener.heard, [(F, b"later")])
        self.assertEqual(self.numbers(), [1])

    @inlineCallbacks
    def test_a_redis_that_may_evict_histories_is_warned_of(self) -> Any:
        """A gap is told as long as something is left; nothing is, where everything was evicted."""
        told: list[list[str]] = []
        for memory, policy in (
            ("100mb", "allkeys-lru"),
            ("100mb", "noeviction"),
            ("0", "allkeys-lru"),
        ):
            self.redis.command("CONFIG", "SET", "maxmemory", memory, "maxmemory-policy", policy)
            lines = log_lines(self)
            broker = start_broker(self, self.redis.address, "", (("*", 3, 60),))
            yield broker.when_available()
            yield broker.commands.position()  # asked after the memory
            told.append([line for line in lines if "evict" in line])
        self.assertEqual([len(each) for each in told], [1, 0, 0], told)
        self.assertIn("allkeys-lru", told[0][0])
        self.assertIn("noeviction", told[0][0])

    @inlineCallbacks
    def test_who_may_not_publish_markers_leaves_nothing(self) -> Any:
        """Else each attempt would leave one more in the history, which nobody was sent."""
        yield self.publish(F)
        before = self.redis.command("LRANGE", b"stream:" + F, 0, -1)
        user = ("ACL", "SETUSER", "default", "resetchannels", "&broadcast:*", "&ws4redis:*")
        self.redis.command(*user)
        with self.assertRaises(BrokerRefused) as caught:
            yield self.publish(F, G)
        self.assertIn("channel: side:" + F.decode(), str(caught.exception))
        self.assertEqual(self.redis.command("LRANGE", b"stream:" + F, 0, -1), before)
        self.assertEqual(self.redis.command("EXISTS", b"stream:" + G, G, b"pos:" + G), 0)

    @inlineCallbacks
    def test_a_redis_that_does_not_tell_its_memory_is_no_trouble(self) -> Any:
        self.redis.command("ACL", "SETUSER", "default", "-info")
        broker = start_broker(self, self.redis.address, "", (("*", 3, 60),))
        yield broker.when_available()
        yield broker.commands.position()

    @inlineCallbacks
    def test_without_scripts_there_is_no_history_and_one_line_says_so(self) -> Any:
        yield self.broker.listen(F, self.listener)
        self.redis.command("ACL", "SETUSER", "default", "-eval", "-evalsha")
        lines = log_lines(self)
        for _ in range(2):
            published = yield self.publish(F)
            self.assertEqual((published, published.position), (1, ""))
        self.assertEqual((yield self.broker.commands.position()), "")
        yield self.listener.wait_for(2)
        self.assertEqual(self.redis.command("EXISTS", b"stream:" + F), 0)
        self.assertEqual(self.redis.command("GET", F), b"hi")
        self.assertEqual(len([line for line in lines if "no history" in line]), 1, lines)

    @inlineCallbacks
    def test_without_scripts_an_idempotency_key_is_refused(self) -> Any:
        yield self.broker.listen(F, self.listener)
        self.redis.command("ACL", "SETUSER", "default", "-eval", "-evalsha")
        for kept in Kept(History(3, 60), "paid"), Kept(None, "paid"):
            for _ in range(2):
                with self.assertRaises(BrokerRefused):
                    yield self.publish(F, kept=kept)
        yield self.broker.fence()
        self.assertEqual(self.listener.heard, [])
