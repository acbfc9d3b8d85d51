"""A recovery over a link that carries few bytes a second: it ends, whatever is persisted."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.programs.chaos.harness import within
from tests.programs.chaos.proxy import COMMANDS, Proxy
from tests.support.brokers import Listener, start_broker
from tests.support.redis import RedisServer
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis import broker, scripts

MIB = 1 << 20


class SlowLinkTests(TestCase):
    """The broker gives Redis one second for each answer."""

    timeout = 90

    @inlineCallbacks
    def setUp(self) -> Any:
        self.patch(broker, "COMMAND_TIMEOUT", 1.0)
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.proxy = Proxy(self.redis.port)
        self.addCleanup(self.proxy.stop)
        address = RedisAddress(host="127.0.0.1", port=self.proxy.port)
        self.broker = start_broker(self, address)
        yield self.broker.when_available()
        self.listener = Listener()

    @inlineCallbacks
    def listen(self, *channels: bytes) -> Any:
        for channel in channels:
            yield self.broker.listen(channel, self.listener)

    def publish(self, channel: bytes, payload: bytes) -> None:
        """Publish from outside, as our publisher does."""
        stamp = b"at:" + channel
        self.redis.command("EVAL", scripts.PUBLISH, 2, channel, stamp, payload, 60)

    def publish_as_of_old(self, channel: bytes, payload: bytes) -> None:
        self.redis.command("PUBLISH", channel, payload)
        self.redis.command("SETEX", channel, 60, payload)

    @inlineCallbacks
    def lose_pubsub(self) -> Any:
        """Fire when the loss was noticed."""
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield self.broker.fence().addErrback(lambda _: None)

    @inlineCallbacks
    def recovered(self) -> Any:
        """Fire when everything that was missed has been heard, after another outage too."""
        while True:
            yield self.broker.when_available()
            try:
                yield self.broker.fence()
                return
            except BrokerUnavailable:
                pass

    def bytes_read(self) -> int:
        """Bytes that the connections for commands have brought."""
        return sum(link.from_redis.bytes for link in self.proxy.links if link.kind == COMMANDS)

    @inlineCallbacks
    def test_more_than_it_carries_in_time_is_recovered_and_others_are_served_meanwhile(
        self,
    ) -> Any:
        channels = [b"session:%d:f" % number for number in range(12)]
        yield self.listen(*channels, b"broadcast:f")
        yield self.lose_pubsub()
        missed = [(channel, channel + b"x" * MIB) for channel in channels]
        for channel, payload in missed:
            self.publish(channel, payload)
        self.proxy.slow_down(4_000_000)
        yield within(self.listener.wait_for(1), "the first one was recovered")
        self.publish(b"broadcast:f", b"live")
        self.publish(b"session:11:f", b"newer")
        yield within(self.recovered(), "it recovered")
        # What was overwritten is not persisted any more.
        expected = [*missed[:-1], (b"broadcast:f", b"live"), (b"session:11:f", b"newer")]
        self.assertEqual(sorted(self.listener.heard), sorted(expected))
        self.assertLess(self.listener.heard.index((b"broadcast:f", b"live")), 11)

    @inlineCallbacks
    def test_newcomers_are_served_before_a_recovery_has_read_everything(self) -> Any:
        channels = [b"session:%d:f" % number for number in range(12)]
        yield self.listen(*channels, b"broadcast:f")
        yield self.lose_pubsub()
        for channel in channels:
            self.publish(channel, channel + b"x" * MIB)
        last = channels[-1]
        restored: Deferred[int] = Deferred()  # revocations must not wait for the rest
        self.broker.on_restored(lambda: restored.callback(len(self.listener.heard)))
        self.proxy.slow_down(4_000_000)
        yield within(self.broker.when_available(), "it is available")
        self.assertLess((yield restored), 12)
        newcomer, latecomer = Listener(), Listener()
        yield self.broker.listen(b"broadcast:new", newcomer)
        yield self.broker.listen(last, latecomer)
        yield self.broker.fence([b"broadcast:f", b"broadcast:new"])
        self.publish(b"broadcast:new", b"live")
        yield within(newcomer.wait_for(1), "the newcomer heard a message")
        self.assertLess(len(self.listener.heard), 12)
        self.assertEqual(latecomer.heard, [])
        yield within(self.broker.fence([last]), "the last channel caught up")
        self.assertEqual(latecomer.heard, [(last, last + b"x" * MIB)])
        yield self.broker.fence()
        self.assertEqual(len(self.listener.heard), 12)

    @inlineCallbacks
    def test_a_message_that_takes_longer_than_an_answer_may_is_recovered_in_pieces(self) -> Any:
        yield self.listen(b"a", b"b")
        yield self.lose_pubsub()
        large = bytes(range(256)) * (4 * MIB // 256)
        self.publish(b"a", large)
        self.publish_as_of_old(b"b", large)
        self.proxy.slow_down(3_000_000)
        yield within(self.recovered(), "it recovered")
        self.assertEqual(sorted(self.listener.heard), [(b"a", large), (b"b", large)])

    @inlineCallbacks
    def test_nothing_is_read_that_was_heard(self) -> Any:
        yield self.listen(*(b"%d" % number for number in range(20)))
        for number in range(20):
            self.publish(b"%d" % number, b"x" * MIB)
            yield self.listener.wait_for(number + 1)
        self.publish_as_of_old(b"19", b"y" * MIB)
        yield self.listener.wait_for(21)
        before = self.bytes_read()
        for _ in range(2):
            yield self.lose_pubsub()
            yield within(self.recovered(), "it recovered")
        self.assertLess(self.bytes_read() - before, 20_000)
        self.assertEqual(len(self.listener.heard), 21)

    @inlineCallbacks
    def test_a_recovery_that_is_cut_goes_on_with_what_is_still_missed(self) -> Any:
        channels = [b"%d" % number for number in range(12)]
        yield self.listen(*channels)
        yield self.lose_pubsub()
        missed = [(channel, channel + b"x" * MIB) for channel in channels]
        for channel, payload in missed:
            self.publish(channel, payload)
        self.proxy.slow_down(6_000_000)
        for count in (2, 6):
            yield within(self.listener.wait_for(count), f"{count} of them were recovered")
            self.proxy.cut()
        before = self.bytes_read()
        yield within(self.recovered(), "it recovered")
        self.assertEqual(sorted(self.listener.heard), sorted(missed))
        self.assertLess(self.bytes_read() - before, 7 * MIB)
