"""The cost of opening a websocket: the server's CPU per handshake of a browser.

Without Django, our server is compared with a server with Autobahn's defaults. With Django, it is
compared with the sum of our server without Django and Django's own lookup of a visitor in one
thread. All websockets stay open. Then 10,000 clients reconnect simultaneously. The server should
serve all of them, in the order of their arrival.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.load import Opened
from benchmarks.opening import ALL_AT_ONCE, Opening
from benchmarks.peers.servers import PlainAutobahn
from benchmarks.report import Figure, Report, Scale, interleave, main
from benchmarks.servers import Site, Twistd

# Handshakes at a time: few enough that none waits long, and enough to keep the server busy.
_AT_ONCE = 10
_LOOKUPS = 2000
_MOST_STORMS = 3
# The server asks Django about so many at a time, and they may be answered in any order.
_MOST_OVERTAKING = 100
_RECONNECTS = "simultaneous reconnects"


def look_up(site: Site) -> dict[str, float]:
    """Return the µs of CPU that Django needs to look up one visitor."""
    keys = [cookie.partition("=")[2] for cookie in site.cookies[:_LOOKUPS]]
    return {"cpu": float(site.run("lookups", told="\n".join(keys)))}


def overtakings(handshakes: Sequence[Opened]) -> list[int]:
    """For each handshake, count those that asked later and were answered earlier. Return the counts
    in ascending order.

    Requests that had to be resent are left out, because nobody knows when the server received them.
    """
    arrived = [each for each in handshakes if not each.resent]
    answered: list[int] = []  # times of the later requests' answers, ascending
    found = []
    for each in sorted(arrived, key=lambda each: each.begun + each.asked, reverse=True):
        when = each.begun + each.took
        found.append(bisect.bisect_left(answered, when))
        bisect.insort(answered, when)
    return sorted(found)


def opened_anew(opening: Opening, number: int) -> float:
    """Return the µs of CPU per handshake, with few other open websockets that would be pinged."""
    opening.close()
    return opening.open(number, _AT_ONCE)


def handshakes(report: Report, site: Site, number: int) -> None:
    """Compare our handshakes, a few at a time, with those of others."""
    bare, ours = "ws4redis_tx, without Django", "ws4redis_tx, with a session"
    plain, lookup = PlainAutobahn.name, "Django's lookup, in one thread"
    with ExitStack() as stack:
        openings = {
            plain: Opening(PlainAutobahn()),
            bare: Opening(Twistd()),
            ours: Opening(Twistd(site=site)),
        }
        for opening in openings.values():
            stack.enter_context(opening)
        found = interleave(
            {
                **{
                    name: lambda opening=opening: {"cpu": opened_anew(opening, number)}
                    for name, opening in openings.items()
                },
                lookup: lambda: look_up(site),
            },
            report.scale.rounds,
        )
    cpu = {name: Figure(name, "µs/handshake", values["cpu"]) for name, values in found.items()}
    report.add(*cpu.values())
    report.goal("handshake: ratio to plain Autobahn's", cpu[bare].over(cpu[plain]), 0.75)
    both = [a + b for a, b in zip(cpu[bare].values, cpu[lookup].values, strict=True)]
    allowed = Figure("(without Django + lookup)", "µs/handshake", both)
    report.goal(
        "handshake with a session: ratio to one without + lookup", cpu[ours].over(allowed), 1.3
    )


def reconnect(opening: Opening, number: int) -> dict[str, float]:
    """Close all websockets and reopen them simultaneously."""
    opening.close()
    cpu = opening.open(number, ALL_AT_ONCE, refusals=True)
    handshakes = opening.load.handshakes()
    begun = min(each.begun for each in handshakes)
    ended = max(each.begun + each.took for each in handshakes)
    return {
        "failed": sum(each.status != 101 for each in handshakes),
        "cpu": cpu,
        "rate": number / (ended - begun) * 1e9,
        "resent": sum(each.resent > 0 for each in handshakes),
        "overtaken": overtakings(handshakes)[-1],
    }


def reconnects(report: Report, site: Site, number: int) -> None:
    with Opening(Twistd(site=site)) as opening:
        found = interleave(
            {_RECONNECTS: lambda: reconnect(opening, number)},
            min(report.scale.rounds, _MOST_STORMS),
        )[_RECONNECTS]
    report.add(
        Figure(_RECONNECTS, "µs/handshake", found["cpu"]),
        Figure(_RECONNECTS, "handshakes/s", found["rate"]),
        Figure(f"{_RECONNECTS}, dropped by the kernel at first", "handshakes", found["resent"]),
    )
    failed = Figure(f"{_RECONNECTS}, not served", "handshakes", found["failed"])
    report.goal(f"{_RECONNECTS}: failures", failed, 0)
    most = Figure(f"{_RECONNECTS}, most that overtook one", "handshakes", found["overtaken"])
    report.goal(f"{_RECONNECTS}: most that overtook one", most, _MOST_OVERTAKING)


def run(scale: Scale) -> Report:
    number, storm = scale.pick(2000, 100), scale.pick(10_000, 300)
    report = Report("handshakes", scale, handshakes=number, simultaneous_reconnects=storm)
    with Site(storm) as site:
        handshakes(report, site, number)
        reconnects(report, site, storm)
    return report


if __name__ == "__main__":
    main(run, __doc__)
