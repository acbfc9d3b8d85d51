"""What a connection costs: resident memory while it is open and idle, and the CPU of opening it.

Our server runs with Django. Each of 15,000 websockets belongs to another logged-in visitor, and is
subscribed to that visitor's session, user and groups and to broadcasts. It also runs without a
site. Other people's servers are measured for comparison. The requests are those of a browser, 64 at
a time. Each round starts fresh processes. The memory of Redis, and the kernel's memory for the
sockets, are not included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.opening import Opening
from benchmarks.peers.servers import PEERS
from benchmarks.report import NEVER_IDLE, Figure, Report, Scale, main
from benchmarks.servers import FACILITY, Server, Site, Twistd

# The result hardly varies between rounds.
MOST_ROUNDS = 3
AT_ONCE = 64
BARE = f"{Twistd.name}, without a site"
EVERYTHING = f"/ws/{FACILITY}?subscribe-session&subscribe-user&subscribe-group&subscribe-broadcast"
# These take so long to open a websocket that they get fewer.
_SLOW = ("Channels", "pushpin")


def kept(make: Callable[[], Server], number: int, targets: Sequence[str] = ()) -> dict[str, float]:
    """Return the KiB and the µs of CPU per websocket, for ``number`` websockets."""
    with Opening(make(), targets) as opening:
        before = opening.server.memory()
        cpu = opening.open(number, AT_ONCE)
        kept = (opening.server.memory() - before) / number / 1024
        return {"kept": kept, "cpu": cpu, NEVER_IDLE: opening.never_idle()}


def made(report: Report, peer: Callable[[Site], Server], site: Site) -> Server:
    server = peer(site)
    report.describe(server)
    return server


def run(scale: Scale) -> Report:
    number, fewer = scale.pick(15_000, 200), scale.pick(5_000, 100)
    report = Report("memory", scale, clients=number, clients_of_slow_servers=fewer)
    with Site(number) as site:
        measures = {
            Twistd.name: lambda: kept(partial(Twistd, site=site), number, [EVERYTHING]),
            BARE: lambda: kept(Twistd, number),
        }
        for peer in PEERS if scale.peers else ():
            clients = fewer if peer.name.startswith(_SLOW) else number
            measure = partial(kept, partial(made, report, peer, site), clients)
            measures[peer.name] = partial(report.attempt, peer.name, measure)
        found = report.interleave(measures, min(scale.rounds, MOST_ROUNDS))
    measured = {name: values for name, values in found.items() if name not in report.missing}
    for name, values in measured.items():
        report.add(Figure(name, "KiB/websocket", values["kept"]))
    for name, values in measured.items():
        report.add(Figure(name, "µs/handshake", values["cpu"]))
    report.goal("memory of an authorized websocket, KiB", report.figures[0], 9)
    return report


if __name__ == "__main__":
    main(run, __doc__)
