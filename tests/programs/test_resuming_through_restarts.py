"""The simulation of cuts, while a real ``twistd ws4redis`` is killed and started again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support.brokers import start_broker
from tests.support.django import SETTINGS, cookies_of, environment, log_in
from tests.support.programs import Program, twistd
from tests.support.redis import RedisServer
from tests.support.simulation import HISTORY, KINDS, Simulation
from tests.support.simulation import SIZES as EVERY
from tests.support.sizes import CUTS, FULL, PUBLISHED
from ws4redis_tx.twistd.embedded_redis import free_port

SIZES = EVERY if FULL else (40, 2)
AWAY = 10  # messages while the server is not there


class KilledTests(TestCase):
    timeout = 1800
    program: Program

    @inlineCallbacks
    def start(self) -> Any:
        """Fire when the server is ready again."""
        self.program = twistd(
            f"--settings={SETTINGS}", f"--listen=tcp:{self.port}:interface=127.0.0.1",
            f"--redis={self.redis.address}",
            *(f"--history={name}={size},{seconds}" for name, size, seconds in HISTORY),
            **environment(),
        )  # fmt: skip
        self.addCleanup(self.program.end)
        yield self.program.wait_for("Ready: websockets at")

    @inlineCallbacks
    def kill(self, client: Any) -> Any:
        yield self.program.signal_and_wait("KILL")
        if client.client is not None:
            yield client.client.closed
        return False

    @inlineCallbacks
    def test_nothing_is_lost_or_comes_twice(self) -> Any:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.port = free_port()
        yield self.start()
        publishers = [start_broker(self, self.redis.address) for _ in range(3)]
        for each in publishers:
            yield each.when_available()
        cookies = cookies_of((yield log_in("john")))
        for kind in KINDS:
            for size in SIZES:
                facility = f"{kind.kind}-{size}"
                simulation, client = Simulation(facility, publishers), kind(facility, cookies)
                killed = PUBLISHED // 2
                faults = {
                    killed: lambda client=client: self.kill(client),
                    killed + AWAY: self.start,
                }
                yield simulation.run(
                    client, self.port, messages=PUBLISHED, cuts=CUTS, faults=faults
                )
                missing = simulation.check(self, client)
                if size >= 40:
                    self.assertEqual((missing, client.told_gaps), (0, 0))
