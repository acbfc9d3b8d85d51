"""Real Redis servers: a shared one, private ones, Sentinels; and a raw subscriber."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import valkey
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from tests.support import TIMEOUT
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.wire.protocol import ResponseError
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.system.launch import watched
from ws4redis_tx.twistd.embedded_redis import find_server, free_port, server_command


class RedisServer:
    """A real Redis server. It ends with this process at the latest."""

    def __init__(
        self,
        *options: str,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        program: str | None = None,
    ) -> None:
        for left in reversed(range(5)):
            self.port = port or free_port()
            said = self._start(
                server_command(program or find_server(), self.port), options, environment
            )
            if not said:
                break
            # Another program may have taken it meanwhile.
            if port or not left or "Address already in use" not in said:
                raise AssertionError(f"Redis did not start: {said}")
        self.address = RedisAddress(host="127.0.0.1", port=self.port)
        atexit.register(self.stop)

    def _start(
        self, command: Sequence[str], options: Sequence[str], environment: Mapping[str, str] | None
    ) -> str:
        """Return what it said, if it has ended."""
        self._process = subprocess.Popen(
            watched([*command, *options]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        said = []
        for line in self._process.stdout:
            said.append(line.decode())
            if "Ready to accept connections" in said[-1]:
                return ""
        self.stop()
        return "".join(said) or "nothing"

    @property
    def pid(self) -> int:
        """The process whose only child is the Redis server."""
        return self._process.pid

    def stop(self) -> None:
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()

    def command(self, *arguments: bytes | str | int) -> Any:
        """Send one command over a new connection. Blocks."""
        import valkey

        with valkey.Valkey(host="127.0.0.1", port=self.port) as client:
            return client.execute_command(*arguments)

    def channels(self) -> list[bytes]:
        """The subscribed channels, without the servers' own."""
        names = self.command("PUBSUB", "CHANNELS")
        return sorted(name for name in names if b"ctl:" not in name)

    def connections(self) -> int:
        """The number of connections, not counting the one used for this query."""
        return self.command("CLIENT", "LIST").count(b"\n") - 1


def debians_redis() -> str:
    """The path of ``redis-server``. Skips the test where it is not installed."""
    path = shutil.which("redis-server")
    if path is None:
        raise SkipTest("redis-server is not installed")
    return path


_shared: RedisServer | None = None


def shared_redis() -> RedisServer:
    """The server that all harmless tests of this process share. Empties it first."""
    global _shared
    if _shared is None:
        _shared = RedisServer()
    _shared.command("FLUSHALL")
    return _shared


class Sentinel:
    """A sentinel; it ends with this process at the latest."""

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
        """Block until this sentinel publishes the event that ``start`` causes."""
        import valkey

        with valkey.Valkey(port=self.port, socket_timeout=30) as client:
            events = client.pubsub()
            events.subscribe(name)
            events.parse_response()
            start(client)
            events.parse_response()
            events.close()


def wait_until_known(sentinels: list[Sentinel], replica: RedisServer) -> None:
    """Block until the sentinels have discovered each other and the replica."""
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


class RawSubscriber:
    """A plain subscriber, as in any other program. Blocks."""

    def __init__(self, test: TestCase, port: int, *channels: str) -> None:
        self._client = valkey.Valkey(host="127.0.0.1", port=port)
        self._pubsub = self._client.pubsub()
        test.addCleanup(self._client.close)
        test.addCleanup(self._pubsub.close)
        self._pubsub.subscribe(*channels)
        for _ in channels:
            assert self._pubsub.get_message(timeout=20)["type"] == "subscribe"

    def take(self, count: int) -> Deferred[list[tuple[str, bytes]]]:
        """Fire with the next messages, as (channel, payload)."""

        def work() -> list[tuple[str, bytes]]:
            found = []
            for _ in range(count):
                message = self._pubsub.get_message(timeout=20)
                assert message is not None, f"only {found} arrived"
                found.append((message["channel"].decode(), message["data"]))
            return found

        return deferToThread(work)


def end_script(redis: RedisServer) -> None:
    with contextlib.suppress(valkey.exceptions.ResponseError):  # it has ended
        redis.command("SCRIPT", "KILL")


@inlineCallbacks
def make_busy(test: TestCase, redis: RedisServer) -> Any:
    """Fire when a script keeps Redis busy; ``end_script`` ends that."""
    script, asking = (Commands(redis.address, "", reactor, timeout=TIMEOUT) for _ in range(2))
    for each in (script, asking):
        each.start()
        test.addCleanup(each.stop)
    runner, protocol = yield gather([script.when_connected(), asking.when_connected()])
    running = runner.execute_command("EVAL", b"while true do end", 0)
    running.addErrback(lambda failure: None)  # it is killed
    running.addCallback(lambda _: script.stop())
    test.addCleanup(end_script, redis)
    while True:
        try:
            yield protocol.execute_command("PING")
        except ResponseError as error:
            test.assertIn("BUSY ", str(error))
            break
    yield asking.stop()
