"""A server with clients: messages in, CPU out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.load import Heard, Load, Undelivered
from benchmarks.servers import Server

SIZE = 128
# Messages that may be on their way before the next one waits: for servers that do not keep up.
_OUTSTANDING = 2
_FEWEST = 5
# Seconds that a message may take to reach everybody.
_PATIENCE = 20.0


def payload(number: int, size: int = SIZE) -> bytes:
    """A message with its number, for the order, and the time, for the latency."""
    return f"{number} {time.monotonic_ns()} ".encode().ljust(size, b"x")


class Clock:
    """CPU that a server, and its Redis, use from here on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._server_before, self._redis_before = server.cpu(), server.redis_cpu()

    def per(self, count: int) -> tuple[float, float]:
        """µs of the server and of its Redis, for each of ``count``."""
        used = self._server.cpu() - self._server_before
        redis = self._server.redis_cpu() - self._redis_before
        return used / count * 1e6, redis / count * 1e6


class Audience:
    """A server and ``number`` clients that hear what it publishes, from here to ``end()``."""

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
                self.fan_out(1.0, 20.0)  # so that all is warm
        except BaseException:
            self.end()
            raise

    def grow(self, number: int) -> None:
        """Open more, until there are ``number``."""
        more = number - self.number
        self.load.open(self.server.port, self._targets, more, cookies=self.server.cookies)
        self.number = number

    def idle(self, seconds: float) -> float:
        """CPU seconds that the server uses a second for clients that hear nothing."""
        before, begun = self.server.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.server.cpu() - before) / (time.monotonic() - begun)

    def fan_out(
        self, seconds: float, rate: float, receivers: int | None = None
    ) -> dict[str, float]:
        """Publish ``rate`` messages a second, one by one, to all; fewer to who is slower than that.

        ``receivers``: how many of the clients hear them.
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
        """Publish ``rate`` messages a second, one by one, or those that are due if it is late: one
        on each of ``channels``, and so on for at least so many seconds.

        ``receivers``: how many of the clients hear them, each on one channel.
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
    """``Audience``; all that it made are ended at the end."""
    made: list[Audience] = []

    def make(*arguments: Any) -> Audience:
        made.append(Audience(*arguments))
        return made[-1]

    try:
        yield make
    finally:
        for audience in made:
            audience.end()
