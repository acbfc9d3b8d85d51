"""One message to 2,000 clients of one facility, 20 times a second: CPU per delivery.

Our server runs as its users run it, with Django's sessions and authorization. It is compared with a
loop over ``send()`` in C, one in Python, and other servers. A server that cannot keep up gets the
next message when it is ready.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.driving import Audience, audiences
from benchmarks.load import Undelivered
from benchmarks.peers.servers import PEERS, DaphnePubSub, NchanRedis, Unavailable
from benchmarks.report import Figure, Report, Scale, interleave, main
from benchmarks.servers import CLoop, PythonLoop, Site, Twistd

RATE = 20.0


def start_all(
    report: Report, make: Callable[..., Audience], site: Site, number: int
) -> list[Audience]:
    """Start our server, the loops, and the other servers that are available here."""
    driven = [make(server, number) for server in (partial(Twistd, site=site), CLoop, PythonLoop)]
    for peer in PEERS if report.scale.peers else ():
        try:
            audience = make(partial(peer, site=site), number)
        except (Unavailable, Undelivered) as error:
            report.miss(peer.name, reason(peer.name, error))
        else:
            report.versions.update(audience.server.versions)
            driven.append(audience)
    return driven


def reason(name: str, error: Exception) -> str:
    return str(error).removeprefix(f"{name}: ")


def measure(report: Report, audience: Audience, seconds: float) -> dict[str, float]:
    """If another server loses messages, that is a result and not an error."""
    name = audience.server.name
    if name in report.missing:
        return {}
    try:
        return audience.fan_out(seconds, RATE)
    except Undelivered as error:
        if name == Twistd.name:
            raise
        report.miss(name, reason(name, error))
        return {}


def run(scale: Scale) -> Report:
    number, seconds = scale.pick(2000, 200), scale.pick(5, 1)
    report = Report("fanout", scale, clients=number, messages_a_second=RATE, bytes=128)
    with Site(number) as site, audiences() as make:
        driven = start_all(report, make, site, number)
        found = interleave(
            {each.server.name: partial(measure, report, each, seconds) for each in driven},
            scale.rounds,
        )
    cpu = {
        name: Figure(name, "µs/delivery", values["cpu"])
        for name, values in found.items()
        if name not in report.missing
    }
    ours = cpu[Twistd.name]
    report.add(*cpu.values())
    for name in cpu:
        report.add(Figure(f"{name}, latency", "ms, median", found[name]["p50"]))
        report.add(Figure(f"{name}, latency", "ms, 99 %", found[name]["p99"]))
    report.add(Figure("Redis of ws4redis_tx", "µs/delivery", found[Twistd.name]["redis"]))
    report.goal("fan-out: ratio to the Python loop", ours.over(cpu[PythonLoop.name]), 1.25)
    report.goal("fan-out: ratio to the C loop (moonshot)", ours.over(cpu[CLoop.name]), 1.25)
    for peer, limit in ((NchanRedis, 1.0), (DaphnePubSub, 1 / 30)):
        if peer.name in cpu:
            report.goal(f"fan-out: ratio to {peer.name}", ours.over(cpu[peer.name]), limit)
    return report


if __name__ == "__main__":
    main(run, __doc__)
