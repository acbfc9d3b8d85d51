"""A real Sentinel trio, a real failover, and websockets that lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.programs.chaos.harness import ChaosTestCase, ask
from tests.support.redis import RedisServer, Sentinel, wait_until_known
from ws4redis_tx.core.redis_address import parse_redis_address


class FailoverTests(ChaosTestCase):
    rounds = 1
    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.master = self.redis
        self.master.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        self.replica = RedisServer("--replicaof", f"127.0.0.1 {self.master.port}")
        self.addCleanup(self.replica.stop)
        self.sentinels = [Sentinel(self.master.port) for _ in range(3)]
        for each in self.sentinels:
            self.addCleanup(each.stop)
        yield deferToThread(wait_until_known, self.sentinels, self.replica)
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.address = parse_redis_address(f"sentinel://{hosts}/mymaster/0")

    @inlineCallbacks
    def fail_over(self, start: Callable[[Any], Any]) -> Any:
        """Fire when a sentinel announces the replica as the master."""
        # Redis itself would lose messages that the replica does not have yet.
        answers = ask(self.master.port, ("SET", "last", 1), ("WAIT", 1, 10000))
        self.assertEqual(answers[1], 1)
        yield deferToThread(self.sentinels[0].wait_for_event, "+switch-master", start)
        self.redis = self.replica

    def subscribed(self) -> set[bytes]:
        return {name for name in super().subscribed() if not name.startswith(b"__sentinel__")}

    def connections(self) -> int:
        """The count of connections, without those of the sentinels and of a replica."""
        clients = self.redis.command("CLIENT", "LIST").splitlines()
        return sum(b"name=sentinel" not in each and b"flags=S" not in each for each in clients) - 1

    @inlineCallbacks
    def test_the_master_dies(self) -> Any:
        yield self.fault(lambda: self.fail_over(lambda _: self.kill_redis()))

    @inlineCallbacks
    def test_the_master_is_relieved_and_goes_on_as_a_replica(self) -> Any:
        def start(sentinel: Any) -> None:
            sentinel.execute_command("SENTINEL", "FAILOVER", "mymaster")

        yield self.fault(lambda: self.fail_over(start))
