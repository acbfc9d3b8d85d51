"""The cost of a delivery as the numbers of clients and channels grow.

- Clients: a message to all of them, from 100 to 15,000. The cost of their pings and rechecks is
  shown separately. The goal is about the deliveries alone; the deviation with both is printed, too.
- Existing channels: a message to 1,000 clients of one facility, while 10,000 other clients are
  spread over 1 to 10,000 other facilities.
- Channels published to: one message to each of those facilities in turn, so 1 to 10,000 messages
  make 10,000 deliveries.
- A subscription, with 10 and with 100,000 existing channels.

The cost is the ratio of our server to the C loop, with the same clients and messages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.driving import Audience, audiences
from benchmarks.report import Figure, Report, Scale, main
from benchmarks.servers import FACILITY, ROOT, CLoop, Site, Twistd

# Deliveries a second, if the number of messages a second is not the limit.
DELIVERIES = 40_000
RATE = 20.0
SPREAD_DELIVERIES = 10_000

Found = dict[str, float]


def compare(
    report: Report, what: str, ours: Callable[[], Found], loop: Callable[[], Found]
) -> tuple[Figure, Figure]:
    """Return the ratio of our cost to that of the C loop, and the ratio for the deliveries alone if
    the cost of other work is known. Add all figures to the report.
    """
    found = report.interleave({f"{what}: ours": ours, f"{what}: C loop": loop})
    cost, least = (Figure(name, "µs/delivery", values["cpu"]) for name, values in found.items())
    ratio = cost.over(least, f"{what}: ours / C loop")
    report.add(cost, least, ratio)
    idle = found[cost.name].get("idle")
    if idle is None:
        return ratio, ratio
    pairs = zip(cost.values, idle, strict=True)
    delivering = Figure(f"{what}: ours, deliveries alone", "µs/delivery", [c - i for c, i in pairs])
    alone = delivering.over(least, f"{what}: ours, deliveries alone / C loop")
    report.add(Figure(f"{what}: ours, pings and rechecks", "µs/delivery", idle), delivering, alone)
    return ratio, alone


def fan_out_and_idle(audience: Audience, seconds: float, rate: float) -> dict[str, float]:
    """Measure a fan-out. Also measure the server while it is idle, and divide that cost among the
    deliveries, because pings and rechecks go on whether there are messages or not.
    """
    idle = audience.idle(seconds)
    found = audience.fan_out(seconds, rate)
    found["idle"] = idle / found["deliveries a second"] * 1e6
    return found


def by_clients(report: Report, site: Site, sizes: list[int]) -> list[tuple[Figure, Figure]]:
    """Return the ratios for each number of clients, as ``compare`` does."""
    seconds = report.scale.pick(4, 1)
    ratios = []
    with audiences() as audience:
        ours, loop = (audience(make, sizes[0]) for make in (partial(Twistd, site=site), CLoop))
        for size in sizes:
            rate = min(RATE, DELIVERIES / size)
            for each in (ours, loop):
                each.grow(size)
                each.fan_out(seconds, rate)  # warm up
            ratios.append(
                compare(
                    report,
                    f"{size:,} clients",
                    partial(fan_out_and_idle, ours, seconds, rate),
                    partial(loop.fan_out, seconds, rate),
                )
            )
    return ratios


def by_channels(
    report: Report, site: Site, sizes: list[int], listeners: int, others: int
) -> tuple[list[Figure], list[Figure]]:
    """Measure with so many existing channels, and with messages to so many channels."""
    seconds = report.scale.pick(3, 1)
    known, spread = [], []
    for size in sizes:
        targets = [f"/ws/{FACILITY}?subscribe-broadcast"] * listeners
        targets += [f"/ws/other{index % size}?subscribe-broadcast" for index in range(others)]
        channels = [f"broadcast:other{index}" for index in range(size)]
        rate = SPREAD_DELIVERIES / others * size
        with audiences() as audience:
            ours = audience(lambda: Twistd(site=site), len(targets), targets)
            loop = audience(CLoop, len(targets), targets)
            known.append(
                compare(
                    report,
                    f"{size:,} existing channel{'s' * (size > 1)}",
                    *(partial(each.fan_out, seconds, RATE, listeners) for each in (ours, loop)),
                )[0]
            )
            spread.append(
                compare(
                    report,
                    f"{size:,} channel{'s' * (size > 1)} published to",
                    *(
                        partial(each.in_turn, channels, seconds, rate, others)
                        for each in (ours, loop)
                    ),
                )[0]
            )
    return known, spread


def deviation(name: str, ratios: Sequence[Figure]) -> Figure:
    """Return the distance of the extreme ratios from the middle between them, relative to it."""
    rounds = zip(*(ratio.values for ratio in ratios), strict=True)
    values = [(max(each) - min(each)) / (max(each) + min(each)) for each in rounds]
    return Figure(name, "±", values)


def subscribing(report: Report, few: int, many: int) -> Figure:
    numbers = [str(number) for number in (few, many, report.scale.rounds)]
    done = report.watch.measure(
        "subscribing",
        lambda: subprocess.run(
            [sys.executable, "-m", "benchmarks.subscribing", *numbers],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ),
    )
    at_few, at_many = (
        Figure(f"subscribing, {number:,} existing channels", "µs", values)
        for number, values in zip((few, many), json.loads(done.stdout), strict=True)
    )
    report.add(at_few, at_many)
    return at_many.over(at_few)


def run(scale: Scale) -> Report:
    report = Report("growth", scale, bytes=128)
    with Site(scale.pick(2000, 200)) as site:
        crowds = [50, 200] if scale.quick else [100, 1000, 5000, 10_000, 15_000]
        whole, alone = zip(*by_clients(report, site, crowds), strict=True)
        sizes = [1, 100] if scale.quick else [1, 100, 10_000]
        others = scale.pick(10_000, 100)
        known, spread = by_channels(report, site, sizes, scale.pick(1000, 100), others)
    report.goal(
        f"deviation: from {crowds[0]} to {crowds[-1]:,} clients, deliveries alone "
        "(pings and rechecks subtracted)",
        deviation("deviation, clients, deliveries alone", alone),
        0.1,
    )
    report.add(deviation("deviation, clients, pings and rechecks included", whole))
    report.goal(
        "deviation: existing channels", deviation("deviation, existing channels", known), 0.15
    )
    report.goal(
        "deviation: channels published to",
        deviation("deviation, channels published to", spread),
        0.15,
    )
    subscribed = subscribing(report, 10, scale.pick(100_000, 1000))
    report.goal("subscribing: ratio of many channels to few", subscribed, 1.15)
    return report


if __name__ == "__main__":
    main(run, __doc__)
