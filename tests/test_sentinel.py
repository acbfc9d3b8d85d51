"""A real Sentinel trio, and a real failover."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support import RedisServer
from tests.test_broker import Listener
from ws4redis_tx.core.redis_address import parse_redis_address
from ws4redis_tx.server.broker import RedisBroker
from ws4redis_tx.server.embedded_redis import find_server, free_port, watched


class Sentinel:
    """One sentinel of ours, which ends with this process at the latest."""

    def __init__(self, master: int) -> None:
        self.port = free_port()
        self._folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        config = Path(self._folder) / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\n"
            f"sentinel monitor mymaster 127.0.0.1 {master} 2\n"
            "sentinel down-after-milliseconds mymaster 1000\n"
            "sentinel failover-timeout mymaster 5000\n"
        )
        self._process = subprocess.Popen(
            watched([find_server(), str(config), "--sentinel"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self.stop)
        for line in self._process.stdout:
            if b"+monitor master" in line:
                break

    def stop(self) -> None:
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            shutil.rmtree(self._folder)

    def wait_for_event(self, name: str, start: Any) -> None:
        """Block until this sentinel publishes the event that ``start`` sets off."""
        import valkey

        with valkey.Valkey(port=self.port, socket_timeout=30) as client:
            events = client.pubsub()
            events.subscribe(name)
            events.parse_response()
            start(client)
            events.parse_response()
            events.close()


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
        broker = RedisBroker(parse_redis_address(f"sentinel://{hosts}/mymaster/0"), "", reactor)
        broker.startService()
        self.addCleanup(broker.stopService)
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
        # The old master may go on for a moment as a replica, which refuses, and is then left.
        while not (yield deferToThread(replica.command, "PUBSUB", "CHANNELS", "a")):
            yield broker.publish([b"a"], b"lost", 0).addErrback(lambda _: None)
            yield broker.when_available()
        listener.heard.clear()
        yield broker.publish([b"a"], b"after", 60)
        yield listener.wait_for(1)
        self.assertEqual(listener.heard[-1], (b"a", b"after"))
        self.assertEqual(replica.command("GET", "a"), b"after")


def wait_until_known(sentinels: list[Sentinel], replica: RedisServer) -> None:
    """Until the sentinels know each other and the replica, which they learn of by asking."""
    import valkey

    for sentinel in sentinels:
        with valkey.Valkey(port=sentinel.port) as client:
            while True:
                state = client.sentinel_master("mymaster")
                replicas = client.sentinel_slaves("mymaster")
                if state["num-other-sentinels"] == 2 and any(
                    each["port"] == replica.port and each["master-link-status"] == "ok"
                    for each in replicas
                ):
                    break
