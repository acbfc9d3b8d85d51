"""One message to one of 2,000 users, 2,000 times a second: CPU for each.

Ours as its users run it, beside the least that can be done on the same reactor: hiredis, a
dictionary, ``socket.send``.
"""

from __future__ import annotations

import time

from benchmarks.driving import Audience, Clock, audiences, payload
from benchmarks.report import Figure, Report, Scale, interleave, main
from benchmarks.servers import FACILITY, MinimalRelay, Site, Twistd

RATE = 2000.0


def relay(audience: Audience, seconds: float) -> dict[str, float]:
    """Send one message after the other, to each client in turn."""
    audience.load.start()
    clock = Clock(audience.server)
    begun = time.monotonic()
    each = max(1, round(seconds * RATE / audience.number))
    sent = 0
    for number in range(each):
        for user in range(audience.number):
            time.sleep(max(0.0, begun + sent / RATE - time.monotonic()))
            channel = f"user:visitor{user}:{FACILITY}"
            audience.server.redis.publish([(channel, payload(number))])
            sent += 1
    heard = audience.load.total(sent)
    cpu, redis = clock.per(sent)
    heard.check(each)
    return {"cpu": cpu, "redis": redis, "p50": heard.p50 / 1e6, "p99": heard.p99 / 1e6}


def run(scale: Scale) -> Report:
    number, seconds = scale.pick(2000, 200), scale.pick(5, 1)
    report = Report("relay", scale, clients=number, messages_a_second=RATE, bytes=128)
    targets = [f"/ws/{FACILITY}?subscribe-user&user=visitor{user}" for user in range(number)]
    with Site(number) as site, audiences() as audience:
        ours = audience(lambda: Twistd(site=site), number, targets)
        minimal = audience(MinimalRelay, number, targets)
        for each in (ours, minimal):
            relay(each, 1)  # so that all is warm
        found = interleave(
            {each.server.name: lambda each=each: relay(each, seconds) for each in (ours, minimal)},
            scale.rounds,
        )
    cpu = {name: Figure(name, "µs/message", values["cpu"]) for name, values in found.items()}
    report.add(*cpu.values())
    for name, values in found.items():
        report.add(Figure(f"{name}, latency", "ms, median", values["p50"]))
        report.add(Figure(f"{name}, latency", "ms, 99 %", values["p99"]))
    report.add(Figure("Redis of ws4redis_tx", "µs/message", found[Twistd.name]["redis"]))
    ratio = cpu[Twistd.name].over(cpu[MinimalRelay.name])
    report.goal("one to one, over the minimal relay", ratio, 1.25)
    return report


if __name__ == "__main__":
    main(run, __doc__)
