"""What opening a websocket costs the server: CPU for each handshake of a browser.

Without Django, beside a server with Autobahn's defaults; with it, beside that and what Django needs
to find out who a visitor is, in one thread. All websockets stay open. Then 10,000 reconnect at
once: all are to be served, and in the order in which they came.
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

# Handshakes at a time: so few that none waits long, so many that the server does not either.
_AT_ONCE = 10
_LOOKUPS = 2000
_MOST_STORMS = 3
# So many are asked about at a time, and the first to be answered need not be the first asked.
_MOST_OVERTAKING = 100


def look_up(site: Site) -> dict[str, float]:
    """µs of CPU that Django needs to find out who one visitor is."""
    keys = [cookie.partition("=")[2] for cookie in site.cookies[:_LOOKUPS]]
    return {"cpu": float(site.run("lookups", told="\n".join(keys)))}


def overtakings(handshakes: Sequence[Opened]) -> list[int]:
    """How many asked after each one and were answered before it, rising.

    Without those whose request had to be sent again: nobody knows when the server got it.
    """
    arrived = [each for each in handshakes if not each.resent]
    answered: list[int] = []  # when those that asked later were, rising
    found = []
    for each in sorted(arrived, key=lambda each: each.begun + each.asked, reverse=True):
        when = each.begun + each.took
        found.append(bisect.bisect_left(answered, when))
        bisect.insort(answered, when)
    return sorted(found)


def opened_anew(opening: Opening, number: int) -> float:
    """µs of CPU for each of so many, while few others are open, who would be pinged meanwhile."""
    opening.close()
    return opening.open(number, _AT_ONCE)


def handshakes(report: Report, site: Site, number: int) -> None:
    """Those of ours, one after the other, beside those of others."""
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
    report.goal("a handshake over plain Autobahn's", cpu[bare].over(cpu[plain]), 0.75)
    both = [a + b for a, b in zip(cpu[bare].values, cpu[lookup].values, strict=True)]
    allowed = Figure("(without Django + lookup)", "µs/handshake", both)
    report.goal("with a session, over one without and the lookup", cpu[ours].over(allowed), 1.3)


def reconnect(opening: Opening, number: int) -> dict[str, float]:
    """All close, and come back at once."""
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
            {"at once": lambda: reconnect(opening, number)}, min(report.scale.rounds, _MOST_STORMS)
        )["at once"]
    report.add(
        Figure("at once", "µs/handshake", found["cpu"]),
        Figure("at once", "handshakes/s", found["rate"]),
        Figure("at once, for which the kernel had no room at first", "handshakes", found["resent"]),
    )
    failed = Figure("at once, not served", "handshakes", found["failed"])
    report.goal("reconnects at once that failed", failed, 0)
    most = Figure("at once, later ones that overtook one", "handshakes", found["overtaken"])
    report.goal("reconnects that overtook an earlier one", most, _MOST_OVERTAKING)


def run(scale: Scale) -> Report:
    number, storm = scale.pick(2000, 100), scale.pick(10_000, 300)
    report = Report("handshakes", scale, handshakes=number, reconnects_at_once=storm)
    with Site(storm) as site:
        handshakes(report, site, number)
        reconnects(report, site, storm)
    return report


if __name__ == "__main__":
    main(run, __doc__)
