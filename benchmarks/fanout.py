"""One message to 2,000 clients of one facility, 20 times a second: CPU per delivery.

Our server runs as its users run it, with Django's sessions and authorization, and also without a
site, like the servers that know no visitors. It is compared with a loop over ``send()`` in C, one
in Python, and other servers. A server that cannot keep up gets the next message when it is ready.

Open servers ping their clients while others are measured. So only a few are open at a time: first
those that a goal names, then the others, a group at a time. Our server is in each group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.driving import Audience, audiences
from benchmarks.peers.servers import PEERS
from benchmarks.report import Figure, Report, Scale, main
from benchmarks.servers import CLoop, PythonLoop, Server, Site, Twistd

RATE = 20.0
OURS, BARE = Twistd.name, f"{Twistd.name}, without a site"
# For each of these peers: which of our servers is compared with it, and the goal.
GOALS = {
    "nginx + nchan, Redis": (OURS, 0.9),
    "Bun + ioredis": (BARE, 1.0),
    "Channels, Daphne": (OURS, 1 / 30),
}
_GROUP = 5

Make = Callable[..., Audience]


def groups(peers: Sequence[type[Server]]) -> Iterator[Sequence[type[Server]]]:
    """Yield the peers that are open at the same time. The first group has those with a goal."""
    yield [peer for peer in peers if peer.name in GOALS]
    rest = [peer for peer in peers if peer.name not in GOALS]
    for start in range(0, len(rest), _GROUP):
        yield rest[start : start + _GROUP]


def start_peers(
    report: Report, make: Make, peers: Sequence[Any], site: Site, number: int
) -> dict[str, Audience]:
    """Start those of ``peers`` that are available here."""
    started = {}
    for peer in peers:
        with report.tries(peer.name):
            audience = make(partial(peer, site=site), number)
            report.describe(audience.server)
            started[peer.name] = audience
    return started


def compare(
    report: Report, ours: dict[str, Audience], peers: dict[str, Audience], seconds: float
) -> dict[str, Figure]:
    """Measure them in turn, and report all that are not reported yet. Return their costs."""
    found = report.interleave(
        {
            **{name: partial(each.fan_out, seconds, RATE) for name, each in ours.items()},
            **{
                name: partial(report.attempt, name, partial(each.fan_out, seconds, RATE))
                for name, each in peers.items()
            },
        }
    )
    reported = {figure.name for figure in report.figures}
    cpu = {}
    for name, values in found.items():
        if name in report.missing:
            continue
        cpu[name] = Figure(name, "µs/delivery", values["cpu"])
        if name not in reported:
            report.add(cpu[name])
            report.add(Figure(f"{name}, latency", "ms, median", values["p50"]))
            report.add(Figure(f"{name}, latency", "ms, 99 %", values["p99"]))
    if OURS not in reported:
        report.add(Figure(f"Redis of {OURS}", "µs/delivery", found[OURS]["redis"]))
    return cpu


def with_goals(report: Report, site: Site, peers: Sequence[Any], number: int) -> None:
    with audiences() as make:
        ours = {
            OURS: make(partial(Twistd, site=site), number),
            BARE: make(Twistd, number),
            CLoop.name: make(CLoop, number),
            PythonLoop.name: make(PythonLoop, number),
        }
        started = start_peers(report, make, peers, site, number)
        cpu = compare(report, ours, started, report.scale.pick(4, 1))
    report.goal("fan-out: ratio to the Python loop", cpu[OURS].over(cpu[PythonLoop.name]), 1.15)
    report.goal("fan-out: ratio to the C loop", cpu[OURS].over(cpu[CLoop.name]), 1.35)
    for name, (which, limit) in GOALS.items():
        text = f"fan-out{which.removeprefix(OURS)}: ratio to {name}"
        if name in cpu:
            report.goal(text, cpu[which].over(cpu[name]), limit)
        else:
            report.goal_not_measured(text, limit, name)
    ratios = [cpu[OURS].over(other) for name, other in cpu.items() if name != OURS]
    report.add(*(ratio for ratio in ratios if ratio not in report.figures))


def beside_others(report: Report, site: Site, peers: Sequence[Any], number: int) -> None:
    with audiences() as make:
        ours = {OURS: make(partial(Twistd, site=site), number)}
        started = start_peers(report, make, peers, site, number)
        cpu = compare(report, ours, started, report.scale.pick(4, 1))
    report.add(*(cpu[OURS].over(theirs) for name, theirs in cpu.items() if name != OURS))


def to_few(report: Report, site: Site, number: int) -> None:
    with audiences() as make:
        both = {
            f"{OURS}, {number} clients": make(partial(Twistd, site=site), number),
            f"{PythonLoop.name}, {number} clients": make(PythonLoop, number),
        }
        seconds = report.scale.pick(4, 1)
        found = report.interleave(
            {name: partial(each.fan_out, seconds, RATE) for name, each in both.items()}
        )
    ours, loop = (Figure(name, "µs/delivery", found[name]["cpu"]) for name in both)
    report.add(ours, loop)
    report.goal(f"fan-out to {number} clients: ratio to the Python loop", ours.over(loop), 1.3)


def run(scale: Scale) -> Report:
    number, few = scale.pick(2000, 200), scale.pick(100, 50)
    report = Report("fanout", scale, clients=number, messages_a_second=RATE, bytes=128)
    with Site(number) as site:
        first, *others = groups(PEERS if scale.peers else ())
        with_goals(report, site, first, number)
        to_few(report, site, few)
        for group in others:
            beside_others(report, site, group, number)
    return report


if __name__ == "__main__":
    main(run, __doc__)
