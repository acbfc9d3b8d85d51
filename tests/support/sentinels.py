"""Sentinels of our own, for tests of a failover."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support import RedisServer
from ws4redis_tx.twistd.embedded_redis import find_server, free_port, watched


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
