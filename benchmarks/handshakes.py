"""The cost of opening a websocket: the server's CPU per handshake of a browser.

Without a site, our server is compared with a server with Autobahn's defaults. With a site, it is
compared with itself without one, with the sum of that and Django's own lookup of a visitor in one
thread, and with Channels on Daphne, which looks up the same sessions and users. 64 browsers open a
websocket at a time, and all websockets stay open. Then clients connect one at a time, and 10,000
reconnect simultaneously. The server should serve all of them, in the order of their arrival.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks.load import Opened
from benchmarks.memory import AT_ONCE
from benchmarks.opening import ALL_AT_ONCE, Opening
from benchmarks.peers.servers import DaphnePubSub, PlainAutobahn
from benchmarks.report import NEVER_IDLE, Figure, Report, Scale, main
from benchmarks.servers import Site, Twistd

_LOOKUPS = 2000
# The server asks Django about so many at a time, and they may be answered in any order.
_MOST_OVERTAKING = 100
_RECONNECTS = "simultaneous reconnects"
_SINGLE = "handshakes with a session, one at a time"


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


def opened_anew(opening: Opening, number: int, at_once: int = AT_ONCE) -> dict[str, float]:
    """Return the µs of CPU per handshake, with few other open websockets that would be pinged."""
    opening.close()
    cpu = opening.open(number, at_once)
    return {"cpu": cpu, NEVER_IDLE: opening.never_idle()}


def start_peer(report: Report, stack: ExitStack, site: Site) -> Opening | None:
    """Start the other server that looks up visitors too, if it is available here."""
    if not report.scale.peers:
        return None
    with report.tries(DaphnePubSub.name):
        server = DaphnePubSub(site)
        report.describe(server)
        return stack.enter_context(Opening(server))
    return None


def handshakes(report: Report, site: Site, number: int) -> None:
    """Compare our handshakes with those of others."""
    bare, ours = f"{Twistd.name}, without a site", f"{Twistd.name}, with a session"
    plain, lookup = PlainAutobahn.name, "Django's lookup, in one thread"
    daphne = DaphnePubSub.name
    with ExitStack() as stack:
        servers = {plain: PlainAutobahn(), bare: Twistd(), ours: Twistd(site=site)}
        openings = {name: stack.enter_context(Opening(each)) for name, each in servers.items()}
        measures: dict[str, Callable[[], dict[str, float]]] = {
            name: partial(opened_anew, opening, number) for name, opening in openings.items()
        }
        measures[lookup] = lambda: look_up(site)
        if (peer := start_peer(report, stack, site)) is not None:
            measure = partial(opened_anew, peer, number)
            measures[daphne] = partial(report.attempt, daphne, measure)
        found = report.interleave(measures)
    cpu = {
        name: Figure(name, "µs/handshake", values["cpu"])
        for name, values in found.items()
        if name not in report.missing
    }
    report.add(*cpu.values())
    report.goal("handshake: ratio to plain Autobahn's", cpu[bare].over(cpu[plain]), 0.75)
    report.goal(
        f"handshake with a session, {AT_ONCE} at a time: ratio to one without a site",
        cpu[ours].over(cpu[bare]),
        2.5,
    )
    text, limit = f"handshake with a session: ratio to {daphne}", 0.5
    if daphne in cpu:
        report.goal(text, cpu[ours].over(cpu[daphne]), limit)
    else:
        report.goal_not_measured(text, limit, daphne)
    both = [a + b for a, b in zip(cpu[bare].values, cpu[lookup].values, strict=True)]
    allowed = Figure("(without a site + lookup)", "µs/handshake", both)
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
        NEVER_IDLE: opening.never_idle(),
    }


def reconnects(report: Report, site: Site, number: int, singles: int) -> None:
    """Compare a handshake of many at once with a single one, at the same server."""
    with Opening(Twistd(site=site)) as opening:
        found = report.interleave(
            {
                _SINGLE: partial(opened_anew, opening, singles, at_once=1),
                _RECONNECTS: partial(reconnect, opening, number),
            }
        )
    single = Figure(_SINGLE, "µs/handshake", found[_SINGLE]["cpu"])
    values = found[_RECONNECTS]
    each = Figure(_RECONNECTS, "µs/handshake", values["cpu"])
    report.add(
        single,
        each,
        Figure(_RECONNECTS, "handshakes/s", values["rate"]),
        Figure(f"{_RECONNECTS}, dropped by the kernel at first", "handshakes", values["resent"]),
    )
    report.goal(f"{_RECONNECTS}: CPU of each / of a single one", each.over(single), 0.4)
    failed = Figure(f"{_RECONNECTS}, not served", "handshakes", values["failed"])
    report.goal(f"{_RECONNECTS}: failures", failed, 0)
    most = Figure(f"{_RECONNECTS}, most that overtook one", "handshakes", values["overtaken"])
    report.goal(f"{_RECONNECTS}: most that overtook one", most, _MOST_OVERTAKING)


def run(scale: Scale) -> Report:
    number, storm = scale.pick(2000, 100), scale.pick(10_000, 300)
    report = Report("handshakes", scale, handshakes=number, simultaneous_reconnects=storm)
    with Site(storm) as site:
        handshakes(report, site, number)
        reconnects(report, site, storm, scale.pick(1000, 50))
    return report


if __name__ == "__main__":
    main(run, __doc__)
