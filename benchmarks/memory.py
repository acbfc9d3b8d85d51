"""The resident memory of the server per open, idle websocket.

Our server runs with Django. Each of 15,000 websockets belongs to another logged-in visitor, and is
subscribed to that visitor's session, user and groups and to broadcasts. Each round starts a fresh
process. Other people's servers are measured for comparison. The requests are those of a browser.
The memory of Redis, and the kernel's memory for the sockets, are not included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.load import Undelivered
from benchmarks.opening import Opening
from benchmarks.peers.servers import PEERS, Channels, Unavailable
from benchmarks.report import Figure, Report, Scale, interleave, main
from benchmarks.servers import FACILITY, Server, Site, Twistd

# The result hardly varies between rounds.
MOST_ROUNDS = 3
EVERYTHING = f"/ws/{FACILITY}?subscribe-session&subscribe-user&subscribe-group&subscribe-broadcast"


def kept(server: Server, number: int, targets: Sequence[str] = ()) -> dict[str, float]:
    """Return the KiB per websocket, for ``number`` websockets."""
    with Opening(server, targets) as opening:
        before = server.memory()
        opening.open(number)
        return {"kept": (server.memory() - before) / number / 1024}


def kept_by(
    report: Report, peer: Callable[[Site], Server], name: str, site: Site, number: int
) -> dict[str, float]:
    """The same for another server. If it fails, that is a result and not an error."""
    if name not in report.missing:
        try:
            server = peer(site)
            report.versions.update(server.versions)
            return kept(server, number)
        except (Unavailable, Undelivered) as error:
            report.miss(name, str(error).removeprefix(f"{name}: "))
    return {}


def run(scale: Scale) -> Report:
    number, fewer = scale.pick(15_000, 200), scale.pick(5_000, 100)
    report = Report("memory", scale, clients=number, clients_of_Channels=fewer)
    with Site(number) as site:
        measures = {Twistd.name: lambda: kept(Twistd(site=site), number, [EVERYTHING])}
        for peer in PEERS if scale.peers else ():
            clients = fewer if issubclass(peer, Channels) else number
            measures[peer.name] = partial(kept_by, report, peer, peer.name, site, clients)
        found = interleave(measures, min(scale.rounds, MOST_ROUNDS))
    for name, values in found.items():
        if name not in report.missing:
            report.add(Figure(name, "KiB/websocket", values["kept"]))
    report.goal("memory of an authorized websocket, KiB", report.figures[0], 9)
    return report


if __name__ == "__main__":
    main(run, __doc__)
