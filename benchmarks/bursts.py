"""150 messages to 1,000 clients, published in one pipeline: CPU per delivery, and deliveries/s.

Messages that arrive in one read from Redis leave in one write per socket, so a delivery gets
cheaper under load. This program compares that with the fan-out of single messages. Then it
publishes single messages for 10 s at 40 % of the measured rate, to check that all of them arrive in
order and to see whether the latency grows: it compares the median of the last five seconds with
that of the first five.

The rate is that of this machine, whose CPUs also run the clients.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.driving import Audience, Clock, audiences, payload
from benchmarks.report import Figure, Report, Scale, main
from benchmarks.servers import Site, Twistd

BURST = 150
SHARE = 0.4


def bursts(audience: Audience, number: int, least: float = 0.0) -> dict[str, float]:
    """Publish ``number`` bursts, each when the previous one has reached all clients, or more until
    that has taken ``least`` seconds.
    """
    audience.load.start()
    clock = Clock(audience.server)
    burst, seconds = 0, 0.0
    while burst < number or seconds < least:
        messages = [payload(burst * BURST + index) for index in range(BURST)]
        begun = time.monotonic()
        audience.server.publish(messages)
        burst += 1
        heard = audience.load.total(burst * BURST * audience.number)
        seconds += time.monotonic() - begun
    deliveries = burst * BURST * audience.number
    cpu, redis = clock.per(deliveries)
    heard.check(burst * BURST)
    return {"cpu": cpu, "redis": redis, "rate": deliveries / seconds}


def sustain(audience: Audience, rate: float, seconds: int) -> dict[str, float]:
    """Publish ``rate`` messages a second, one at a time, or all that are due if we are late. Return
    the medians of all seconds, and how much the latency of the second half has grown.
    """
    clock = Clock(audience.server)
    audience.load.start()
    begun = time.monotonic()
    sent = 0
    p50, p99 = [], []
    for second in range(1, seconds + 1):
        while sent < second * rate:
            due = begun + sent / rate - time.monotonic()
            if due > 0:
                time.sleep(due)
            number = max(1, int((time.monotonic() - begun) * rate) - sent)
            audience.server.publish([payload(sent + index) for index in range(number)])
            sent += number
        heard = audience.load.lap()
        p50.append(heard.p50 / 1e6)
        p99.append(heard.p99 / 1e6)
    audience.load.total(sent * audience.number).check(sent)
    cpu, _ = clock.per(sent * audience.number)
    half = seconds // 2
    return {
        "cpu": cpu,
        "p50": statistics.median(p50),
        "p99": statistics.median(p99),
        "growth": statistics.median(p50[-half:]) / statistics.median(p50[:half]),
    }


def run(scale: Scale) -> Report:
    clients, singles = scale.pick(1000, 100), scale.pick(2000, 200)
    report = Report("bursts", scale, clients=clients, messages_in_a_burst=BURST, bytes=128)
    with Site(singles) as site, audiences() as audience:
        one_by_one = audience(lambda: Twistd(site=site), singles)
        bursting = audience(lambda: Twistd(site=site), clients)
        bursts(bursting, 2)  # warm up
        found = report.interleave(
            {
                "single": lambda: one_by_one.fan_out(scale.pick(5, 1), 20.0),
                "bursts": lambda: bursts(bursting, scale.pick(20, 5), scale.pick(1, 0)),
            }
        )
        rate = statistics.median(found["bursts"]["rate"]) * SHARE / clients
        seconds = scale.pick(10, 4)
        sustained = report.interleave({"sustained": lambda: sustain(bursting, rate, seconds)})
    single = Figure("single messages", "µs/delivery", found["single"]["cpu"])
    burst = Figure("bursts", "µs/delivery", found["bursts"]["cpu"])
    speed = Figure("bursts, rate", "deliveries/s", found["bursts"]["rate"])
    report.add(single, burst, speed)
    report.add(Figure("Redis of the bursts", "µs/delivery", found["bursts"]["redis"]))
    report.add(Figure("sustained, rate", "deliveries/s", [rate * clients]))
    values = sustained["sustained"]
    report.add(Figure("sustained", "µs/delivery", values["cpu"]))
    report.add(Figure("sustained, latency", "ms, median", values["p50"]))
    report.add(Figure("sustained, latency", "ms, 99 %", values["p99"]))
    report.goal("bursts: ratio to single messages", burst.over(single), 1 / 8)
    report.goal("bursts: deliveries a second", speed, 1e6, least=True)
    report.goal(
        "sustained load: latency of the second half / the first, with no message lost",
        Figure("sustained, latency: second half / first half", "times", values["growth"]),
        1.1,
    )
    return report


if __name__ == "__main__":
    main(run, __doc__)
