"""One contract for brokers, kept by the real one and by the one for tests."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.trial.unittest import TestCase

from tests.support.brokers import AWKWARD, BrokerTestCase, Listener, start_broker
from tests.support.redis import RedisServer, shared_redis
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.names import stamp_key
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.testing import MemoryBroker


class BrokerContract:
    """The promises of ``IBroker``. ``self.broker`` is available."""

    broker: Any
    addCleanup: Any

    def publish(self, *arguments: Any) -> None:
        """Publish without waiting; the test's clean-up waits."""
        published = self.broker.publish(*arguments)
        self.addCleanup(lambda: published)

    @inlineCallbacks
    def test_what_is_published_after_listen_arrives_unchanged_and_in_order(self) -> Any:
        listener = Listener()
        yield self.broker.listen(b"a", listener)
        for payload in AWKWARD * 10:
            self.publish([b"a"], payload, 0)
        yield listener.wait_for(len(AWKWARD) * 10)
        self.assertEqual(listener.heard, [(b"a", payload) for payload in AWKWARD * 10])

    @inlineCallbacks
    def test_order_is_kept_over_all_channels(self) -> Any:
        listener = Listener()
        yield gatherResults([self.broker.listen(name, listener) for name in (b"a", b"b", b"c")])
        expected = [(b"abc"[i % 3 : i % 3 + 1], b"%d" % i) for i in range(99)]
        for channel, payload in expected:
            self.publish([channel], payload, 0)
        yield listener.wait_for(99)
        self.assertEqual(listener.heard, expected)

    @inlineCallbacks
    def test_publish_counts_subscribers_over_its_channels(self) -> Any:
        yield self.broker.listen(b"a", Listener())
        yield self.broker.listen(b"a", Listener())
        yield self.broker.listen(b"b", Listener())
        self.assertEqual((yield self.broker.publish([b"a", b"b", b"nobody"], b"hi", 0)), 2)

    @inlineCallbacks
    def test_publish_persists_unless_expire_is_zero(self) -> Any:
        yield self.broker.publish([b"a", b"b"], b"1", 60)
        yield self.broker.publish([b"a"], b"2", 0)
        found = yield self.broker.get(b"a")
        self.assertEqual((found, found.channel), (b"1", b"a"))
        self.assertEqual((yield self.broker.get(b"b")), b"1")
        self.assertIsNone((yield self.broker.get(b"c")))

    @inlineCallbacks
    def test_nothing_arrives_after_unlisten(self) -> Any:
        leaver, other = Listener(), Listener()
        yield self.broker.listen(b"a", leaver)
        yield self.broker.listen(b"a", other)
        self.broker.unlisten(b"a", leaver)
        self.broker.unlisten(b"never", leaver)
        self.publish([b"a"], b"hi", 0)
        yield other.wait_for(1)
        self.assertEqual(leaver.heard, [])

    @inlineCallbacks
    def test_who_leaves_and_comes_back_at_once_is_subscribed(self) -> Any:
        listener = Listener()
        yield self.broker.listen(b"a", listener)
        self.broker.unlisten(b"a", listener)
        yield self.broker.listen(b"a", listener)
        self.publish([b"a"], b"hi", 0)
        yield listener.wait_for(1)

    @inlineCallbacks
    def test_a_sender_can_recognise_its_own_message_and_only_that_one(self) -> Any:
        sender, other = Listener(), Listener()
        yield self.broker.listen(b"a", sender)
        yield self.broker.listen(b"a", other)
        self.publish([b"a"], b"hi", 0)
        self.publish([b"a"], b"ho", 0, sender)
        self.publish([b"a"], b"ho", 0)
        yield other.wait_for(3)
        self.assertEqual(
            [publication.sender for publication in sender.publications], [None, sender, None]
        )

    @inlineCallbacks
    def test_a_listener_that_fails_costs_the_others_nothing(self) -> Any:
        class Failing(Listener):
            def deliver(self, publication: Publication) -> None:
                raise RuntimeError("deliberate")

        other = Listener()
        yield self.broker.listen(b"a", Failing())
        yield self.broker.listen(b"a", other)
        self.publish([b"a"], b"1", 0)
        self.publish([b"a"], b"2", 0)
        yield other.wait_for(2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    @inlineCallbacks
    def test_a_fence_stands_behind_everything_published_before_it(self) -> Any:
        listener = Listener()
        yield self.broker.listen(b"a", listener)
        yield gatherResults([self.broker.publish([b"a"], b"%d" % i, 0) for i in range(50)])
        fences = [self.broker.fence() for _ in range(3)]
        yield gatherResults(fences)
        self.assertEqual(len(listener.heard), 50)
        self.publish([b"a"], b"51", 0)
        yield self.broker.publish([b"b"], b"nobody's", 0)
        yield self.broker.fence([b"a", b"b"])
        self.assertEqual(len(listener.heard), 51)

    # Outages

    def lose_connection(self) -> Deferred[None]:
        """Fire when it is lost; it does not come back before the reactor's next turn."""
        raise NotImplementedError

    def publish_elsewhere(self, channel: bytes, message: bytes, expire: int) -> None:
        """Publish as another process does, meanwhile."""
        raise NotImplementedError

    def restored(self) -> Deferred[None]:
        """Fire when the broker is available again."""
        raise NotImplementedError

    @inlineCallbacks
    def test_listeners_stay_and_get_what_was_persisted_in_an_outage_and_nothing_twice(self) -> Any:
        listener, leaver = Listener(), Listener()
        names = [b"heard before", b"b", b"a", b"not persisted", b"nobody's"]
        yield gatherResults([self.broker.listen(name, listener) for name in names[:-1]])
        yield self.broker.listen(names[-1], leaver)
        yield self.broker.publish([b"heard before"], b"0", 60)
        yield listener.wait_for(1)
        generation = self.broker.generation
        generation_of = self.broker.generation_of(names)
        yield self.lose_connection()
        self.broker.unlisten(names[-1], leaver)
        self.publish_elsewhere(b"a", b"1", 60)
        self.publish_elsewhere(b"b", b"2", 60)
        self.publish_elsewhere(b"a", b"3", 60)
        self.publish_elsewhere(b"not persisted", b"4", 0)
        self.publish_elsewhere(b"nobody's", b"5", 60)
        heard = [(b"heard before", b"0")]
        self.assertEqual(listener.heard, heard)
        yield self.restored()
        # Before it is available, in the order of their publication.
        heard += [(b"b", b"2"), (b"a", b"3")]
        self.assertEqual(listener.heard, heard)
        self.assertNotEqual(self.broker.generation, generation)
        self.assertNotEqual(self.broker.generation_of(names), generation_of)
        self.publish([b"not persisted"], b"6", 0)
        yield listener.wait_for(4)
        self.assertEqual(listener.heard, [*heard, (b"not persisted", b"6")])
        self.assertEqual(leaver.heard, [])

    @inlineCallbacks
    def test_after_an_outage_those_who_registered_are_told_once_what_was_missed_is_delivered(
        self,
    ) -> Any:
        listener, told = Listener(), []

        def restored(name: str) -> Any:
            return lambda: told.append((name, self.broker.available, list(listener.heard)))

        yield self.broker.listen(b"a", listener)
        self.broker.on_restored(restored("first"))
        remove = self.broker.on_restored(restored("removed"))
        self.broker.on_restored(restored("second"))
        remove()
        remove()
        missed = []
        for payload in (b"1", b"2"):
            all_told: Deferred[None] = Deferred()
            no_more = self.broker.on_restored(partial(all_told.callback, None))
            yield self.lose_connection()
            self.publish_elsewhere(b"a", payload, 60)
            missed.append((b"a", payload))
            self.assertEqual(told, [])
            yield self.restored()
            yield all_told
            no_more()
            self.assertEqual(told, [("first", True, missed), ("second", True, missed)])
            told.clear()


class MemoryBrokerTests(BrokerContract, TestCase):
    def setUp(self) -> None:
        self.broker = MemoryBroker()

    def lose_connection(self) -> Deferred[None]:
        self.broker.lose_connection()
        return succeed(None)

    def publish_elsewhere(self, channel: bytes, message: bytes, expire: int) -> None:
        self.broker.publish_elsewhere([channel], message, expire)

    def restored(self) -> Deferred[None]:
        self.broker.restore()
        return self.broker.when_available()


class DelayedMemoryBrokerTests(MemoryBrokerTests):
    """The contract, kept by a broker whose answers and messages take a while."""

    def setUp(self) -> None:
        self.broker = MemoryBroker(reactor)
        self.broker.delay = 0.001


class RedisBrokerTests(BrokerContract, TestCase):
    """The contract, and more for a real Redis."""

    timeout = 60

    def setUp(self) -> Deferred[None]:
        self.redis = shared_redis()
        return self.start()

    def start(self, prefix: str = "") -> Deferred[None]:
        self.broker = start_broker(self, self.redis.address, prefix)
        return self.broker.when_available()

    def lose_connection(self) -> Deferred[None]:
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        return succeed(None)

    def publish_elsewhere(self, channel: bytes, message: bytes, expire: int) -> None:
        if expire:
            seconds, micros = self.redis.command("TIME")
            stamp = seconds * 10**6 + micros
            end = 1000 * (seconds + expire)
            self.redis.command("SET", channel, message, "PXAT", end)
            self.redis.command("SET", stamp_key("", channel), stamp, "PXAT", end)
        self.redis.command("PUBLISH", channel, message)

    @inlineCallbacks
    def restored(self) -> Any:
        yield self.assertFailure(self.broker.fence(), BrokerUnavailable)
        yield self.broker.when_available()

    @inlineCallbacks
    def test_stopping_it_twice_or_before_its_start_is_harmless(self) -> Any:
        yield self.broker.stopService()
        yield self.broker.stopService()
        self.assertFalse(self.broker.available)
        yield RedisBroker(self.redis.address, "", reactor).stopService()
        # A broker that was stopped twice can be started again.
        self.broker.startService()
        yield self.broker.when_available()
        self.assertEqual((yield self.broker.publish([b"a"], b"hi", 0)), 0)

    @inlineCallbacks
    def test_an_outage_of_the_commands_alone_and_a_first_connection_restore_nothing(self) -> Any:
        told: list[str] = []
        broker = RedisBroker(self.redis.address, "", reactor)
        for each in (self.broker, broker):
            each.on_restored(lambda: told.append("restored"))
        broker.startService()
        self.addCleanup(broker.stopService)
        yield broker.when_available()
        self.redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for each in (self.broker, broker):
            yield each.publish([b"a"], b"hi", 0).addErrback(lambda _: None)
            yield each.when_available()
            yield each.publish([b"a"], b"hi", 0)
            yield each.fence()
        self.assertEqual(told, [])

    @inlineCallbacks
    def test_the_last_listener_ends_the_subscription(self) -> Any:
        first, second = Listener(), Listener()
        yield gatherResults([self.broker.listen(b"a", each) for each in (first, second)])
        self.broker.unlisten(b"a", first)
        yield self.broker.fence()
        self.assertEqual(self.redis.channels(), [b"a"])
        self.broker.unlisten(b"a", second)
        yield self.broker.fence()
        self.assertEqual(self.redis.channels(), [])

    @inlineCallbacks
    def test_a_key_of_another_type_reads_as_nothing(self) -> Any:
        self.redis.command("LPUSH", "a", "x")
        self.assertIsNone((yield self.broker.get(b"a")))

    @inlineCallbacks
    def test_a_killed_connection_comes_back_subscribed(self) -> Any:
        listener = Listener()
        yield gatherResults([self.broker.listen(b"%d" % i, listener) for i in range(20)])
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        with self.assertRaises(BrokerUnavailable):
            yield self.broker.fence()
        yield self.broker.when_available()
        for i in range(20):
            self.redis.command("PUBLISH", str(i), "back")
        yield listener.wait_for(20)
        self.assertEqual(sorted(listener.heard), sorted((b"%d" % i, b"back") for i in range(20)))

    @inlineCallbacks
    def test_a_lost_answer_leaves_the_fate_of_a_message_open(self) -> Any:
        published = self.broker.publish([b"a"], b"hi", 10)
        self.broker.commands._connection.protocol.transport.abortConnection()
        with self.assertRaises(BrokerUnavailable) as caught:
            yield published
        self.assertTrue(caught.exception.maybe_published)
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.broker.publish([b"a"], b"hi", 10)
        self.assertFalse(caught.exception.maybe_published)

    @inlineCallbacks
    def test_what_redis_refuses_is_raised_with_its_words_and_was_not_published(self) -> Any:
        listener = Listener()
        yield self.broker.listen(b"a", listener)
        self.redis.command("CONFIG", "SET", "maxmemory", "1")
        self.addCleanup(self.redis.command, "CONFIG", "SET", "maxmemory", "0")
        with self.assertRaises(BrokerRefused) as caught:
            yield self.broker.publish([b"a"], b"hi", 10)
        self.assertIn("OOM", str(caught.exception))
        self.assertFalse(caught.exception.maybe_published)
        yield self.broker.fence()
        self.assertEqual(listener.heard, [])


class RecordTests(BrokerTestCase):
    """A message, and entries for those who do not hear it."""

    channels = (b"ctl:x",)

    @inlineCallbacks
    def record(self, message: bytes, entries: dict[bytes, bytes]) -> Any:
        self.assertEqual((yield self.broker.commands.record(b"ctl:x", message, entries)), 1)
        yield self.listener.wait_for(1)
        self.assertEqual(self.listener.heard.pop(), (b"ctl:x", message))

    @inlineCallbacks
    def test_the_newest_come_first_and_the_list_is_bounded_and_short_lived(self) -> Any:
        yield self.record(b"1", {b"ctl:a": b"one\n", b"ctl:b": b"uno\n"})
        yield self.record(b"2", {b"ctl:a": b"two\n"})
        self.assertEqual((yield self.broker.get(b"ctl:a")), b"two\none\n")
        self.assertEqual((yield self.broker.get(b"ctl:b")), b"uno\n")
        self.assertTrue(0 < self.redis.command("TTL", "ctl:a") <= 60)
        for _ in range(3):
            yield self.record(b"3", {b"ctl:a": b"x" * 30_000})
        self.assertLess(len((yield self.broker.get(b"ctl:a"))), 70_000)

    @inlineCallbacks
    def test_a_list_that_cannot_be_kept_keeps_nobody_from_hearing(self) -> Any:
        self.redis.command("LPUSH", "ctl:a", "x")
        yield self.record(b"1", {b"ctl:a": b"one\n"})
        self.assertEqual((yield self.broker.get(b"ctl:a")), b"one\n")
        self.redis.command("CONFIG", "SET", "maxmemory", 1)
        yield self.record(b"2", {b"ctl:a": b"two\n"})
        self.redis.command("CONFIG", "SET", "maxmemory", 0)
        for rights in ("resetkeys ~a", "resetkeys ~a -eval"):
            self.redis.command("ACL", "SETUSER", "default", *rights.split())
            yield self.record(b"3", {b"ctl:a": b"three\n"})
        self.redis.command("ACL", "SETUSER", "default", "~*")
        yield self.record(b"4", {b"ctl:a": b"four\n"})
        self.assertEqual((yield self.broker.get(b"ctl:a")), b"four\n")


class PermissionTests(TestCase):
    """A Redis user that may not run scripts."""

    timeout = 60

    @inlineCallbacks
    def test_without_permission_for_scripts_messages_are_persisted_and_published_plainly(
        self,
    ) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        redis.command("ACL", "SETUSER", "default", "-eval", "-evalsha")
        broker = start_broker(self, redis.address)
        yield broker.when_available()
        listener = Listener()
        yield broker.listen(b"a", listener)
        counts = yield gatherResults([broker.publish([b"a"], b"%d" % i, 10) for i in range(20)])
        yield listener.wait_for(20)
        self.assertEqual(counts, [1] * 20)
        self.assertEqual(listener.heard, [(b"a", b"%d" % i) for i in range(20)])
        self.assertEqual((yield broker.get(b"a")), b"19")

    @inlineCallbacks
    def test_permission_taken_away_while_running_loses_nothing(self) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        broker = start_broker(self, redis.address)
        yield broker.when_available()
        redis.command("ACL", "SETUSER", "default", "-eval", "-evalsha")
        yield broker.publish([b"a"], b"hi", 10)
        self.assertEqual((yield broker.get(b"a")), b"hi")
