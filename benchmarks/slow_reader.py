"""One client that reads nothing: its cost to the server and to the other clients.

Publishes messages one after another to ten clients that read. In every second round, another client
is connected that does not read. Measures the latency from the publish until a client has the whole
message, and prints the ratio of its 99th percentile with that client to the one without, and how
much the server's memory grew.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import NamedTuple

import valkey

from benchmarks.clients import Clients
from benchmarks.servers import Twistd
from ws4redis_tx.websocket.frames import server_frame

SIZE = 64 * 1024
MEBIBYTE = 1024 * 1024


def p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


class Outcome(NamedTuple):
    """Ratios of latencies with the stalled client to those without it, and growth in bytes."""

    p99: float
    median: float
    growth: int


def measure(policy: str, mebibytes: int, rounds: int, readers_number: int = 10) -> Outcome:
    server = Twistd(f"--slow-reader={policy}")
    clients = Clients()
    redis = valkey.Valkey(port=server.redis_port)
    readers = clients.open(server.port, "/ws/load?subscribe-broadcast", readers_number)
    expected = 0

    def publish(size: int) -> list[float]:
        nonlocal expected
        latencies = []
        payload = b"x" * SIZE
        for _ in range(size * MEBIBYTE // SIZE):
            expected += len(server_frame(payload))
            started = time.perf_counter()
            redis.publish("broadcast:load", payload)
            latencies += [at - started for at in clients.wait_for(readers, expected).values()]
        return latencies

    publish(10)
    alone: list[float] = []
    beside: list[float] = []
    before = most = server.memory()
    for _ in range(rounds):
        alone += publish(mebibytes // rounds)
        (stalled,) = clients.open(server.port, "/ws/load?subscribe-broadcast", 1, reads=False)
        for _ in range(20):
            beside += publish(max(1, mebibytes // rounds // 20))
            most = max(most, server.memory())
        clients.close([stalled])
    clients.end()
    redis.close()
    server.end()
    return Outcome(
        p99(beside) / p99(alone),
        statistics.median(beside) / statistics.median(alone),
        most - before,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for policy in ("close", "drop_oldest", "latest"):
        outcome = measure(policy, options.mebibytes, options.rounds)
        print(
            f"{policy:12} p99 {outcome.p99:.2f} times that without the stalled client "
            f"(median {outcome.median:.2f}), server grew by {outcome.growth / MEBIBYTE:.1f} MiB"
        )
