"""A client that is cut off again and again gets everything once and in order, or is told of a gap.

Three publishers with a history and an old one without publish on three channels. The client resumes
at random moments, over websockets and over server-sent events.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.brokers import start_broker
from tests.support.redis import RedisServer, debians_redis
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.simulation import HISTORY, KINDS, SIZES, John, Simulation
from tests.support.sizes import CUTS, PUBLISHED
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.service import make_service


class ValkeyTests(ServerTestCase):
    timeout = 1800

    @inlineCallbacks
    def setUp(self) -> Any:
        self.redis = self.start_redis()
        self.addCleanup(self.redis.stop)
        config = ServerConfig(redis=self.redis.address, listen=LISTEN, history=HISTORY)
        service = make_service(config, authorizer=John())
        self.launch(service)
        yield service.when_ready()
        self.publishers = [start_broker(self, self.redis.address) for _ in range(3)]
        for each in self.publishers:
            yield each.when_available()

    def start_redis(self) -> RedisServer:
        return RedisServer()

    @inlineCallbacks
    def simulate(self, kind: Any, size: int, old_every: int = 0) -> Any:
        """Fire with the numbers of messages that are missing, and of gaps that were told."""
        facility = f"{kind.kind}-{old_every}-{size}"
        simulation, client = Simulation(facility, self.publishers), kind(facility)
        yield simulation.run(client, self.port, messages=PUBLISHED, cuts=CUTS, old_every=old_every)
        self.assertEqual(simulation.published, sorted(simulation.published))
        return simulation.check(self, client), client.told_gaps

    @inlineCallbacks
    def test_everything_of_the_new_publishers_comes_once_and_in_order(self) -> Any:
        for kind in KINDS:
            for size in SIZES:
                missing, gaps = yield self.simulate(kind, size)
                if size >= 40:
                    self.assertEqual((missing, gaps), (0, 0))
                else:  # the check has seen that they lie in gaps
                    self.assertGreater(missing, 0)

    @inlineCallbacks
    def test_beside_an_old_publisher_what_is_missing_is_told(self) -> Any:
        for kind in KINDS:
            for size in SIZES:
                yield self.simulate(kind, size, old_every=4)


class RedisTests(ValkeyTests):
    """On the Redis of Debian."""

    def start_redis(self) -> RedisServer:
        return RedisServer(program=debians_redis())
