"""A publish goes out at once; one that Redis refuses in part costs the other channels nothing."""

from __future__ import annotations

from typing import Any

import valkey
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support.brokers import Listener, start_broker
from tests.support.redis import RedisServer, shared_redis
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress

CHANNELS = [b"user:%d:f" % i for i in range(1000)]


class AtOnceTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_a_message_is_sent_before_the_reactor_turns(self) -> Any:
        redis = shared_redis()
        broker = start_broker(self, redis.address)
        yield broker.when_available()
        with valkey.Valkey(port=redis.port) as client, client.pubsub() as heard:
            heard.subscribe("a")
            self.assertEqual(heard.get_message(timeout=20)["type"], "subscribe")
            published = broker.publish([b"a"], b"hi", 60)
            # This blocks the reactor's thread.
            message = heard.get_message(timeout=5)
        self.assertIsNotNone(message)
        self.assertEqual(message["data"], b"hi")
        self.assertEqual((yield published), 1)


class RefusedTests(TestCase):
    """A Redis user that may publish on some channels only."""

    timeout = 60

    @inlineCallbacks
    def start(self, *rules: str) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        redis.command("ACL", "SETUSER", "web", "on", ">secret", "+@all", *rules)
        address = RedisAddress(host="127.0.0.1", port=redis.port, username="web", password="secret")
        self.broker = start_broker(self, address)
        yield self.broker.when_available()
        self.listener = Listener()
        for channel in (b"user:1:f", b"user:999:f"):
            yield self.broker.listen(channel, self.listener)

    @inlineCallbacks
    def test_channels_that_redis_refuses_cost_the_others_of_their_script_nothing(self) -> Any:
        yield self.start("~*", "&*ctl:*", "&user:1:*", "&user:999:*")
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.broker.publish(CHANNELS, b"hi", 60)
        self.assertNotIsInstance(caught.exception, BrokerRefused)
        self.assertIn("in part", str(caught.exception))
        self.assertTrue(caught.exception.maybe_published)
        yield self.listener.wait_for(2)
        self.assertEqual(self.listener.heard, [(b"user:1:f", b"hi"), (b"user:999:f", b"hi")])
        with self.assertRaises(BrokerRefused) as caught:
            yield self.broker.publish(CHANNELS[2:400], b"hi", 60)
        self.assertFalse(caught.exception.maybe_published)
        self.assertIn("No permissions", str(caught.exception))
        self.assertEqual((yield self.broker.publish([b"user:1:f"], b"again", 60)), 1)

    @inlineCallbacks
    def test_keys_that_redis_refuses_cost_the_others_their_atomicity_alone(self) -> Any:
        yield self.start("&*", "~at:*", "~user:1:*", "~user:999:*")
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.broker.publish(CHANNELS, b"hi", 60)
        self.assertTrue(caught.exception.maybe_published)
        yield self.listener.wait_for(2)
        self.assertEqual((yield self.broker.get(b"user:1:f")), b"hi")
        self.assertEqual((yield self.broker.get(b"user:999:f")), b"hi")
