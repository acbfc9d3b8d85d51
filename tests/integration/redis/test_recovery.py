"""After an outage, messages persisted meanwhile arrive once, in their place."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.brokers import BrokerTestCase
from tests.support.redis import RedisServer


class OutageTests(BrokerTestCase):
    """The broker, through outages that the test makes and fills."""

    channels = (b"a", b"b", b"c")

    @inlineCallbacks
    def deaf(self, *steps: Any) -> Any:
        """Lose the pub/sub connection, take the steps while it is lost, wait until it is back."""
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        for step in steps:
            step()
        yield self.broker.fence().addErrback(lambda _: None)
        yield self.broker.when_available()
        yield self.broker.fence()

    def publish(self, channel: str, payload: str) -> None:
        """Publish from outside, as our publisher does."""
        from ws4redis_tx.redis.scripts import PUBLISH

        self.redis.command("EVAL", PUBLISH, 2, channel, f"at:{channel}", payload, 60)

    def publish_as_of_old(self, channel: str, payload: str) -> None:
        self.redis.command("PUBLISH", channel, payload)
        self.redis.command("SETEX", channel, 60, payload)

    @inlineCallbacks
    def test_what_was_published_meanwhile_arrives_once_in_order_and_before_what_follows(
        self,
    ) -> Any:
        self.publish("a", "before")
        yield self.deaf(
            lambda: self.publish("b", "first"),
            lambda: self.publish("a", "second"),
        )
        self.publish("c", "after")
        yield self.listener.wait_for(4)
        yield self.broker.fence()
        self.assertEqual(
            self.listener.heard,
            [(b"a", b"before"), (b"b", b"first"), (b"a", b"second"), (b"c", b"after")],
        )

    @inlineCallbacks
    def test_what_had_arrived_is_not_replayed(self) -> Any:
        for payload in ("1", "2"):
            self.publish("a", payload)
        self.publish_as_of_old("b", "old")
        yield self.listener.wait_for(3)
        yield self.deaf()
        yield self.deaf()
        self.assertEqual(self.listener.heard, [(b"a", b"1"), (b"a", b"2"), (b"b", b"old")])

    @inlineCallbacks
    def test_a_publisher_of_old_is_served_too(self) -> Any:
        self.publish("a", "stamped")
        yield self.listener.wait_for(1)
        yield self.deaf(lambda: self.publish_as_of_old("a", "unstamped"))
        self.assertEqual(self.listener.heard[1:], [(b"a", b"unstamped")])

    @inlineCallbacks
    def test_what_was_read_from_its_key_is_not_sent_again(self) -> Any:
        self.publish("d", "persisted")
        yield self.broker.listen(b"d", self.listener)
        self.assertEqual((yield self.broker.get(b"d")), b"persisted")
        yield self.broker.fence()
        yield self.deaf()
        self.assertEqual(self.listener.heard, [])

    @inlineCallbacks
    def test_a_key_of_another_type_harms_its_own_channel_alone(self) -> Any:
        def spoil() -> None:
            self.publish("a", "its stamp is lost")
            self.redis.command("DEL", "at:a")
            self.redis.command("LPUSH", "at:a", "x")
            self.redis.command("HSET", "b", "x", "y")
            self.publish("c", "missed")

        yield self.deaf(spoil)
        self.assertEqual(
            sorted(self.listener.heard), [(b"a", b"its stamp is lost"), (b"c", b"missed")]
        )
        yield self.deaf()
        self.publish("a", "live")
        yield self.listener.wait_for(3)

    @inlineCallbacks
    def test_long_messages_arrive_too_and_equal_ones_that_were_published_meanwhile(self) -> Any:
        for payload in ("", "x" * 2000, "x" * 1_000_000):
            self.publish("a", payload)
            yield self.deaf()
            yield self.broker.commands.probe(self.broker._dispatcher.probe.channel)
            yield self.broker.fence()
            yield self.deaf(lambda payload=payload: self.publish("a", payload))
        self.assertEqual(
            [len(payload) for _, payload in self.listener.heard],
            [0, 0, 2000, 2000, 1_000_000, 1_000_000],
        )

    @inlineCallbacks
    def test_a_redis_user_who_may_not_ask_for_sizes_recovers_too(self) -> Any:
        for rights in ("-strlen -getrange -info", "-strlen -getrange -eval"):
            self.redis.command("ACL", "SETUSER", "default", *rights.split())
            self.redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            yield self.broker.publish([b"a"], b"x", 0).addErrback(lambda _: None)
            yield self.broker.when_available()
            self.listener.heard.clear()
            yield self.deaf(
                partial(self.publish_as_of_old, "b", rights + "x" * 1_000_000),
                partial(self.publish_as_of_old, "c", rights),
            )
            self.assertEqual(
                sorted((channel, len(payload)) for channel, payload in self.listener.heard),
                [(b"b", len(rights) + 1_000_000), (b"c", len(rights))],
            )

    @inlineCallbacks
    def test_without_permission_for_scripts_it_is_the_same(self) -> Any:
        self.redis.command("ACL", "SETUSER", "default", "-eval")
        self.redis.command("CLIENT", "KILL", "TYPE", "normal")
        yield self.broker.publish([b"a"], b"x", 0).addErrback(lambda _: None)
        yield self.broker.when_available()
        yield self.deaf(lambda: self.publish_as_of_old("a", "missed"))
        self.assertIn((b"a", b"missed"), self.listener.heard)

    @inlineCallbacks
    def test_a_redis_that_replaced_another_is_believed_though_its_clock_is_behind(self) -> Any:
        self.publish("a", "heard")
        yield self.listener.wait_for(1)
        yield self.broker.commands.probe(self.broker._dispatcher.probe.channel)
        yield self.broker.fence()
        self.redis.stop()
        self.redis = RedisServer(port=self.redis.port)
        seconds, micros = self.redis.command("TIME")
        behind = (seconds - 3600) * 10**6 + micros
        for channel, payload in (("a", "heard"), ("b", "missed")):
            self.redis.command("MSET", channel, payload, f"at:{channel}", behind)
        yield self.broker.fence().addErrback(lambda _: None)
        yield self.broker.when_available()
        self.assertEqual(self.listener.heard, [(b"a", b"heard"), (b"b", b"missed")])

    @inlineCallbacks
    def test_a_user_whose_keys_are_limited_recovers_too(self) -> Any:
        for rights in ("~a ~b ~c", "~a ~b ~c -eval"):
            self.redis.command("ACL", "SETUSER", "default", "resetkeys", *rights.split())
            self.redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            yield self.broker.publish([b"a"], b"x", 0).addErrback(lambda _: None)
            yield self.broker.when_available()
            yield self.deaf()
            self.assertTrue(self.broker.available)

    @inlineCallbacks
    def test_a_user_without_rights_on_the_control_channel_is_served_without_probes(self) -> Any:
        rights = ("resetchannels", "&a", "&b", "&c")
        self.redis.command("ACL", "SETUSER", "default", *rights)
        yield self.deaf(lambda: self.publish("a", "missed"))
        self.publish("b", "live")
        yield self.listener.wait_for(2)
        self.assertEqual(self.listener.heard, [(b"a", b"missed"), (b"b", b"live")])
