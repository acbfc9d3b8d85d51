"""A real Sentinel trio, and a real failover."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.brokers import Listener, start_broker
from tests.support.redis import RedisServer, Sentinel, wait_until_known
from ws4redis_tx.core.redis_address import parse_redis_address


class SentinelTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def test_after_a_failover_the_new_master_is_published_to_and_heard(self) -> Any:
        master = RedisServer()
        replica = RedisServer("--replicaof", f"127.0.0.1 {master.port}")
        sentinels = [Sentinel(master.port) for _ in range(3)]
        for each in (master, replica, *sentinels):
            self.addCleanup(each.stop)
        yield deferToThread(wait_until_known, sentinels, replica)
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        broker = start_broker(self, parse_redis_address(f"sentinel://{hosts}/mymaster/0"))
        yield broker.when_available()
        listener = Listener()
        yield broker.listen(b"a", listener)
        yield broker.publish([b"a"], b"before", 60)
        yield listener.wait_for(1)

        yield deferToThread(
            sentinels[0].wait_for_event,
            "+switch-master",
            lambda client: client.execute_command("SENTINEL", "FAILOVER", "mymaster"),
        )
        # The old master may go on for a moment as a replica; it refuses, and the broker leaves it.
        while not (yield deferToThread(replica.command, "PUBSUB", "CHANNELS", "a")):
            yield broker.publish([b"a"], b"lost", 0).addErrback(lambda _: None)
            yield broker.when_available()
        listener.heard.clear()
        yield broker.publish([b"a"], b"after", 60)
        yield listener.wait_for(1)
        self.assertEqual(listener.heard[-1], (b"a", b"after"))
        self.assertEqual(replica.command("GET", "a"), b"after")
