"""The simulation of cuts, while Redis is restarted, replaced, or loses what it keeps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.support.brokers import start_broker
from tests.support.clocks import SteppingClock
from tests.support.programs import children
from tests.support.redis import RedisServer, Sentinel, debians_redis, wait_until_known
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.simulation import FLAGS, HISTORY, KINDS, John, Simulation
from tests.support.simulation import SIZES as EVERY
from tests.support.sizes import CUTS, FULL, PUBLISHED
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.positions import Position, read_position
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address
from ws4redis_tx.redis.wire import connection
from ws4redis_tx.service import make_service

HOUR = 3600
SIZES = EVERY if FULL else (40, 2)


def kill(redis: RedisServer) -> None:
    (server,) = children(redis.pid)
    os.kill(server, signal.SIGKILL)
    redis.stop()


class OutageTestCase(ServerTestCase):
    timeout = 1800

    def setUp(self) -> None:
        # Otherwise the tests would mostly wait.
        self.patch(connection, "_LONGEST_DELAY", 0.1)

    @inlineCallbacks
    def serve(self, address: RedisAddress) -> Any:
        config = ServerConfig(redis=address, listen=LISTEN, history=HISTORY)
        service = make_service(config, authorizer=John())
        self.launch(service)
        yield service.when_ready()
        self.broker = service.factory.broker
        self.publishers = [start_broker(self, address) for _ in range(3)]
        for each in self.publishers:
            yield each.when_available()

    @inlineCallbacks
    def simulate(self, kind: Any, size: int, fault: Callable[[Simulation, Any], Any]) -> Any:
        """Fire with the numbers of messages that are missing, and of gaps that were told. The fault
        comes twice: while the client is connected, or wherever it is.
        """
        facility = f"{kind.kind}-{size}"
        simulation, client = Simulation(facility, self.publishers), kind(facility)
        faults = {at: lambda: fault(simulation, client) for at in (PUBLISHED // 3, PUBLISHED // 2)}
        yield simulation.run(client, self.port, messages=PUBLISHED, cuts=CUTS, faults=faults)
        return simulation.check(self, client), client.told_gaps


class RestartTests(OutageTestCase):
    extra = 1_000_000  # numbers of messages besides those of the simulation

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.redis = self.start_redis()
        self.addCleanup(lambda: self.redis.stop())
        yield self.serve(self.redis.address)

    def start_redis(self, port: int | None = None) -> RedisServer:
        return RedisServer(port=port)

    @inlineCallbacks
    def restart_empty(self, simulation: Simulation, client: Any) -> Any:
        kill(self.redis)
        self.redis = yield deferToThread(self.start_redis, self.redis.port)

    @inlineCallbacks
    def lose_the_connections(self, simulation: Simulation, client: Any) -> Any:
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        for _ in range(30):
            self.extra += 1
            yield simulation.publish(self.extra)
        yield self.broker.fence().addErrback(lambda _: None)
        yield self.broker.when_available()

    def go_to_tomorrow(self, simulation: Simulation, client: Any) -> Any:
        """Its position, of this data set, has not been given out yet."""
        if client.client is None:
            return None
        left = client.cut()
        position = read_position(client.position)
        tomorrow = Position(int((time.time() + 24 * HOUR) * 1e6), position.mark)
        client.position = str(tomorrow)
        return left

    def evict(self, *words: str) -> Callable[[Simulation, Any], None]:
        def delete(simulation: Simulation, client: Any) -> None:
            for channel in simulation.channels:
                self.redis.command("DEL", *[f"{word}:{channel.decode()}" for word in words])

        return delete

    @inlineCallbacks
    def test_redis_is_restarted_empty(self) -> Any:
        for kind in KINDS:
            for size in SIZES:
                _, gaps = yield self.simulate(kind, size, self.restart_empty)
                self.assertGreater(gaps, 0)

    @inlineCallbacks
    def test_the_pubsub_connection_is_lost(self) -> Any:
        for kind in KINDS:
            for size in SIZES:
                missing, gaps = yield self.simulate(kind, size, self.lose_the_connections)
                if size >= 40:
                    self.assertEqual((missing, gaps), (0, 0))

    @inlineCallbacks
    def test_a_position_is_from_the_future(self) -> Any:
        for kind in KINDS:
            for size in SIZES:
                _, gaps = yield self.simulate(kind, size, self.go_to_tomorrow)
                self.assertGreater(gaps, 0)

    @inlineCallbacks
    def test_keys_are_evicted(self) -> Any:
        for words in (("pos",), ("stream",), ("pos", "stream")):
            for kind in KINDS:
                for size in SIZES:
                    yield self.simulate(kind, size, self.evict(*words))
                    self.redis.command("FLUSHALL")


class DebiansRedisTests(RestartTests):
    """On the Redis of Debian."""

    def start_redis(self, port: int | None = None) -> RedisServer:
        return RedisServer(port=port, program=debians_redis())


class FailoverTests(OutageTestCase):
    """A master dies, and Sentinels make a replica the master."""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        clock = SteppingClock(self)
        self.master = RedisServer()
        self.addCleanup(self.master.stop)
        self.master.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        clock.step(-HOUR)
        self.replica = RedisServer(
            "--replicaof", f"127.0.0.1 {self.master.port}", environment=clock.environment
        )
        self.addCleanup(self.replica.stop)
        self.sentinels = [Sentinel(self.master.port) for _ in range(3)]
        for each in self.sentinels:
            self.addCleanup(each.stop)
        yield deferToThread(wait_until_known, self.sentinels, self.replica)
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        yield self.serve(parse_redis_address(f"sentinel://{hosts}/mymaster/0"))

    def stop_replicating(self) -> None:
        self.replica.command("CONFIG", "SET", "masterauth", "wrong")
        self.master.command("CLIENT", "KILL", "TYPE", "replica")

    @inlineCallbacks
    def fail_over(self) -> Any:
        yield self.broker.fence()  # what the replica does not have has been heard
        yield deferToThread(
            self.sentinels[0].wait_for_event, "+switch-master", lambda _: kill(self.master)
        )

    @inlineCallbacks
    def run_with(self, kind: Any, size: int, faults: dict[int, Callable[[], Any]]) -> Any:
        facility = f"{kind.kind}-{size}"
        # With it the server hears what is published while the other one is away.
        yield self.open(f"{facility}?{FLAGS}")
        simulation, client = Simulation(facility, self.publishers), kind(facility)
        yield simulation.run(client, self.port, messages=PUBLISHED, cuts=CUTS, faults=faults)
        return simulation, client

    @inlineCallbacks
    def test_its_clock_lags_and_it_has_lost_the_last_writes(self) -> Any:
        faults = {PUBLISHED // 3: self.stop_replicating, PUBLISHED // 2: self.fail_over}
        simulation, client = yield self.run_with(KINDS[0], 40, faults)
        simulation.check(self, client)
        self.assertGreater(client.told_gaps, 0)
        positions = [position for position, *_ in simulation.published]
        self.assertNotEqual(positions[0].mark, positions[-1].mark)
        self.assertEqual(positions[-1].stamp, max(each.stamp for each in positions))
