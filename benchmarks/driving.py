"""Drives a server with clients: publishes messages and measures the CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.load import Heard, Load, Undelivered
from benchmarks.servers import Server

SIZE = 128
# Messages that may be in transit before the next one waits, for servers that cannot keep up.
_OUTSTANDING = 2
_FEWEST = 5
# Seconds that a message may take to reach everybody.
_PATIENCE = 20.0


def payload(number: int, size: int = SIZE) -> bytes:
    """A message that starts with its number, to check the order, and the time, for the latency."""
    return f"{number} {time.monotonic_ns()} ".encode().ljust(size, b"x")


class Clock:
    """Measures the CPU that a server and its Redis use from now on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._server_before, self._redis_before = server.cpu(), server.redis_cpu()

    def per(self, count: int) -> tuple[float, float]:
        """Return the µs of the server and of its Redis, divided by ``count``."""
        used = self._server.cpu() - self._server_before
        redis = self._server.redis_cpu() - self._redis_before
        return used / count * 1e6, redis / count * 1e6


class Audience:
    """A server and ``number`` clients that receive its messages, until ``end()``."""

    def __init__(
        self, make_server: Callable[[], Server], number: int, targets: Sequence[str] = ()
    ) -> None:
        self.server = make_server()
        self.load = Load()
        self.number = 0
        self._targets = targets or self.server.targets()
        try:
            self.grow(number)
            if not targets:
                self.fan_out(1.0, 20.0)  # warm up
        except BaseException:
            self.end()
            raise

    def grow(self, number: int) -> None:
        """Open more websockets, until there are ``number``."""
        more = number - self.number
        self.server.open(self.load, self._targets, more, cookies=self.server.cookies)
        self.number = number

    def idle(self, seconds: float) -> float:
        """Return the CPU seconds a second that the server uses while it publishes nothing."""
        before, begun = self.server.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.server.cpu() - before) / (time.monotonic() - begun)

    def fan_out(
        self, seconds: float, rate: float, receivers: int | None = None
    ) -> dict[str, float]:
        """Publish ``rate`` messages a second, one at a time, or fewer if the server is slower.

        ``receivers`` is the number of clients that receive them; by default all.
        """
        receivers = receivers or self.number
        self.load.start(ordered=True)
        clock = Clock(self.server)
        begun = time.monotonic()
        sent = 0
        while sent < _FEWEST or (sent < seconds * rate and time.monotonic() < begun + seconds):
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
            if sent >= _OUTSTANDING:
                self.load.total((sent - _OUTSTANDING + 1) * receivers, _PATIENCE)
            self.server.publish([payload(sent)])
            sent += 1
        heard = self.load.total(sent * receivers, _PATIENCE)
        passed = time.monotonic() - begun
        cpu, redis = clock.per(sent * receivers)
        self._check(heard, sent, receivers)
        return {
            "cpu": cpu,
            "redis": redis,
            "p50": heard.p50 / 1e6,
            "p99": heard.p99 / 1e6,
            "deliveries a second": sent * receivers / passed,
        }

    def in_turn(
        self, channels: Sequence[str], seconds: float, rate: float, receivers: int | None = None
    ) -> dict[str, float]:
        """Publish ``rate`` messages a second, one at a time, or all that are due if we are late.
        The channels take turns for at least ``seconds``.

        ``receivers`` is the number of clients that receive them, each on one channel.
        """
        receivers = receivers or self.number
        server: Any = self.server
        self.load.start()
        clock = Clock(server)
        begun = time.monotonic()
        rounds = math.ceil(seconds * rate / len(channels))
        sent = 0
        while sent < rounds * len(channels):
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
            due = max(sent + 1, int((time.monotonic() - begun) * rate))
            due = min(due, rounds * len(channels))
            numbers = [divmod(index, len(channels)) for index in range(sent, due)]
            server.redis.publish([(channels[index], payload(turn)) for turn, index in numbers])
            sent = due
        heard = self.load.total(rounds * receivers)
        cpu, redis = clock.per(rounds * receivers)
        self._check(heard, rounds, receivers)
        return {"cpu": cpu, "redis": redis, "p50": heard.p50 / 1e6, "p99": heard.p99 / 1e6}

    def _check(self, heard: Heard, sent: int, receivers: int) -> None:
        """Raise unless everything was delivered, once and in order."""
        try:
            heard.check_total(sent * receivers)
            if receivers == self.number:
                heard.check(sent)
        except Undelivered as error:
            raise Undelivered(f"{self.server.name}: {error}") from error

    def end(self) -> None:
        self.load.end()
        self.server.end()


@contextmanager
def audiences() -> Iterator[Callable[..., Audience]]:
    """Give a function that makes an ``Audience``. Afterwards, end all that it made."""
    made: list[Audience] = []

    def make(*arguments: Any) -> Audience:
        made.append(Audience(*arguments))
        return made[-1]

    try:
        yield make
    finally:
        for audience in made:
            audience.end()
