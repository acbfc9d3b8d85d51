"""One message to 2,000 clients of one facility, 20 times a second: CPU for each delivery.

Ours as its users run it, with Django's sessions and authorization, beside a loop over ``send()`` in
C, one in Python, and other servers. Who cannot keep up gets the next message when it is ready.
"""

from __future__ import annotations

from benchmarks.driving import audiences
from benchmarks.report import Figure, Report, Scale, interleave, main
from benchmarks.servers import CLoop, PythonLoop, Site, Twistd

RATE = 20.0


def run(scale: Scale) -> Report:
    number, seconds = scale.pick(2000, 200), scale.pick(5, 1)
    report = Report("fanout", scale, clients=number, messages_a_second=RATE, bytes=128)
    with Site(number) as site, audiences() as audience:
        servers = (lambda: Twistd(site=site), CLoop, PythonLoop)
        driven = [audience(make_server, number) for make_server in servers]
        found = interleave(
            {each.server.name: lambda each=each: each.fan_out(seconds, RATE) for each in driven},
            scale.rounds,
        )
    cpu = {name: Figure(name, "µs/delivery", values["cpu"]) for name, values in found.items()}
    ours = cpu[Twistd.name]
    report.add(*cpu.values())
    report.add(Figure("ws4redis_tx, latency", "ms, median", found[Twistd.name]["p50"]))
    report.add(Figure("ws4redis_tx, latency", "ms, 99 %", found[Twistd.name]["p99"]))
    report.add(Figure("Redis of ws4redis_tx", "µs/delivery", found[Twistd.name]["redis"]))
    report.goal("fan-out over the Python loop", ours.over(cpu[PythonLoop.name]), 1.25)
    report.goal("moonshot: over the C loop", ours.over(cpu[CLoop.name]), 1.25)
    return report


if __name__ == "__main__":
    main(run, __doc__)
