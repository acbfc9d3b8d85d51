"""One message to one of 2,000 users, 2,000 times a second: CPU per message.

Our server runs as its users run it. It is compared with a minimal relay on the same reactor:
hiredis, a dictionary and ``socket.send``.
"""

from __future__ import annotations

from benchmarks.driving import audiences
from benchmarks.report import Figure, Report, Scale, main
from benchmarks.servers import FACILITY, MinimalRelay, Site, Twistd

RATE = 2000.0


def run(scale: Scale) -> Report:
    number, seconds = scale.pick(2000, 200), scale.pick(5, 1)
    report = Report("relay", scale, clients=number, messages_a_second=RATE, bytes=128)
    targets = [f"/ws/{FACILITY}?subscribe-user&user=visitor{user}" for user in range(number)]
    channels = [f"user:visitor{user}:{FACILITY}" for user in range(number)]
    with Site(number) as site, audiences() as audience:
        ours = audience(lambda: Twistd(site=site), number, targets)
        minimal = audience(MinimalRelay, number, targets)
        for each in (ours, minimal):
            each.in_turn(channels, 1, RATE)  # warm up
        found = report.interleave(
            {
                each.server.name: lambda each=each: {
                    **each.in_turn(channels, seconds, RATE),
                    "idle": each.idle(seconds),
                }
                for each in (ours, minimal)
            }
        )
    cpu = {name: Figure(name, "µs/message", values["cpu"]) for name, values in found.items()}
    report.add(*cpu.values())
    for name, values in found.items():
        report.add(Figure(f"{name}, latency", "ms, median", values["p50"]))
        report.add(Figure(f"{name}, latency", "ms, 99 %", values["p99"]))
    report.add(Figure("Redis of ws4redis_tx", "µs/message", found[Twistd.name]["redis"]))
    ours, theirs = cpu[Twistd.name], cpu[MinimalRelay.name]
    goal = "one to one, idle work included: ratio to the minimal relay"
    report.goal(goal, ours.over(theirs), 1.2)
    # The server does this work for its visitors whether there are messages or not.
    idle = [used / RATE * 1e6 for used in found[Twistd.name]["idle"]]
    alone = [whole - part for whole, part in zip(ours.values, idle, strict=True)]
    messages = Figure("ws4redis_tx, messages alone", "µs/message", alone)
    report.add(Figure("ws4redis_tx, pings and rechecks", "µs/message", idle), messages)
    report.add(messages.over(theirs))
    return report


if __name__ == "__main__":
    main(run, __doc__)
