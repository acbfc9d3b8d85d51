"""The cost of a subscription in a server with few channels, and in one with many.

Two of the server's brokers run in one process, each with its own Redis. In turn, each subscribes to
a thousand more channels and leaves them. ``python -m benchmarks.subscribing FEW MANY ROUNDS``
prints the CPU µs of a subscription in each round, as JSON. The program ``growth`` runs it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import react

from benchmarks.servers import Redis
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.service import make_broker

SOME = 1000


class Listener:
    def deliver(self, publication: object) -> None:
        pass


@inlineCallbacks
def listen_and_leave(broker: Any) -> Any:
    """Fire with the CPU µs per channel for subscribing to ``SOME`` channels and leaving them."""
    listeners = [Listener() for _ in range(SOME)]
    begun = time.process_time()
    yield gatherResults(
        broker.listen(b"broadcast:more%d" % index, listener)
        for index, listener in enumerate(listeners)
    )
    for index, listener in enumerate(listeners):
        broker.unlisten(b"broadcast:more%d" % index, listener)
    yield broker.fence()
    return (time.process_time() - begun) / SOME * 1e6


@inlineCallbacks
def start(reactor: Any, redis: Redis, channels: int) -> Any:
    """Fire with a broker that has listeners on ``channels`` channels."""
    config = ServerConfig(redis=RedisAddress(host="127.0.0.1", port=redis.port))
    broker = make_broker(config, reactor=reactor)
    broker.startService()
    yield broker.when_available()
    yield gatherResults(
        broker.listen(b"broadcast:known%d" % index, Listener()) for index in range(channels)
    )
    return broker


@inlineCallbacks
def measure(reactor: Any, few: str, many: str, rounds: str) -> Any:
    redises = [Redis(), Redis()]
    brokers = []
    for redis, channels in zip(redises, (few, many), strict=True):
        brokers.append((yield start(reactor, redis, int(channels))))
    found: list[list[float]] = [[], []]
    for counted in range(int(rounds) + 1):  # the first is a warm-up
        for broker, values in zip(brokers, found, strict=True):
            cost = yield listen_and_leave(broker)
            if counted:
                values.append(cost)
    print(json.dumps(found))
    for broker in brokers:
        yield broker.stopService()
    for redis in redises:
        redis.end()


if __name__ == "__main__":
    react(measure, sys.argv[1:])
