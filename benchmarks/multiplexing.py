"""Centrifuge's protocol, compared with the classic one and with Centrifugo: CPU and memory.

Our server runs as its users run it, with Django's sessions and authorization, and also without a
site. A message goes to 2,000 clients of one channel, 20 times a second, with and without a history.
Browsers connect with their visitors' sessions and subscribe to five channels of five facilities in
one frame. They are compared with classic handshakes for one facility: for broadcasts alone, and for
all audiences on both sides. Other clients connect with a token and subscribe to one channel. 64
connect at a time. The memory is that of 10,000 connections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import valkey

from benchmarks.driving import audiences
from benchmarks.handshakes import opened_anew
from benchmarks.history import CHANNEL, HISTORY, KEPT, publish
from benchmarks.memory import EVERYTHING, kept
from benchmarks.opening import Opening
from benchmarks.peers.centrifugo import CentrifugoHistory, CentrifugoRedis
from benchmarks.peers.ours import CentrifugeTwistd
from benchmarks.report import Figure, Report, Scale, main
from benchmarks.servers import FACILITY, Server, Site, Twistd

RATE = 20.0
FIVE = tuple(f"broadcast:facility{number}" for number in range(5))
OWN = (
    "user:notifications",
    "session:tasks",
    "group:everyone:team",
    "broadcast:news",
    "broadcast:chat",
)
"""Two of these are the visitor's own: Redis subscribes to them."""


class KeepingCentrifugeTwistd(CentrifugeTwistd):
    name = f"{CentrifugeTwistd.name}, with history"

    def __init__(self, **server: Any) -> None:
        super().__init__(f"--history={FACILITY}={HISTORY.size},{HISTORY.seconds}", **server)
        self._connection = valkey.Valkey(port=self.redis_port)

    def publish(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            publish(self._connection, [CHANNEL], b'"%b"' % message, KEPT)

    def end(self) -> None:
        self._connection.close()
        super().end()


def compare(
    report: Report, text: str, ours: Figure, others: dict[str, Figure], name: str, limit: float
) -> None:
    """Judge the ratio of ``ours`` to the figure of the server ``name``, if that was measured."""
    if name in others:
        report.goal(text, ours.over(others[name]), limit)
    else:
        report.goal_not_measured(text, limit, name)


def figures(
    report: Report, found: dict[str, dict[str, list[float]]], what: str, unit: str
) -> dict[str, Figure]:
    made = {
        name: Figure(f"{what}, {name}", unit, values["cpu"])
        for name, values in found.items()
        if name not in report.missing
    }
    report.add(*made.values())
    return made


def fan_out(report: Report, site: Site, number: int, seconds: float) -> None:
    ours: list[Callable[..., Server]] = [Twistd, CentrifugeTwistd, KeepingCentrifugeTwistd]
    peers = [CentrifugoRedis, CentrifugoHistory] if report.scale.peers else []
    with audiences() as make:
        opened = [make(partial(each, site=site), number) for each in ours]
        measures = {each.server.name: partial(each.fan_out, seconds, RATE) for each in opened}
        for peer in peers:
            with report.tries(peer.name):
                audience = make(partial(peer, site=site), number)
                report.describe(audience.server)
                measure = partial(audience.fan_out, seconds, RATE)
                measures[peer.name] = partial(report.attempt, peer.name, measure)
        found = report.interleave(measures)
    cpu = figures(report, found, "fan-out", "µs/delivery")
    classic = cpu[Twistd.name]
    for server, peer in (
        (CentrifugeTwistd, CentrifugoRedis),
        (KeepingCentrifugeTwistd, CentrifugoHistory),
    ):
        each = cpu[server.name]
        report.goal(f"fan-out, {server.name}: ratio to the classic one", each.over(classic), 1.1)
        text = f"fan-out, {server.name}: ratio to {peer.name}"
        compare(report, text, each, cpu, peer.name, 0.7)


def connecting(report: Report, site: Site, number: int) -> None:
    bare = "without a site"
    classic, five = "a classic handshake", "connect with 5 subscriptions"
    classic_own = f"{classic} with all audiences"
    own = f"{five} of all audiences"
    token, peer = "connect with a token and 1 subscription", CentrifugoRedis.name
    servers: dict[str, Callable[[], Server]] = {
        classic: partial(Twistd, site=site),
        classic_own: partial(Twistd, site=site),
        five: partial(CentrifugeTwistd, names=FIVE, site=site),
        f"{classic}, {bare}": Twistd,
        f"{five}, {bare}": partial(CentrifugeTwistd, names=FIVE),
        own: partial(CentrifugeTwistd, names=OWN, site=site),
        token: partial(CentrifugeTwistd, tokens=True, site=site),
    }
    targets = {classic_own: [EVERYTHING]}
    with ExitStack() as stack:
        openings = {
            name: stack.enter_context(Opening(make(), targets.get(name, ())))
            for name, make in servers.items()
        }
        if report.scale.peers:
            with report.tries(peer):
                server = CentrifugoRedis(site)
                report.describe(server)
                openings[peer] = stack.enter_context(Opening(server))
        measures: dict[str, Callable[[], dict[str, float]]] = {
            name: partial(opened_anew, opening, number) for name, opening in openings.items()
        }
        if peer in measures:
            measures[peer] = partial(report.attempt, peer, measures[peer])
        found = report.interleave(measures)
    cpu = figures(report, found, "connecting", "µs")
    for ours, ours_classic in ((five, classic), (own, classic_own)):
        report.goal(f"{ours}: ratio to {ours_classic}", cpu[ours].over(cpu[ours_classic]), 1.5)
    report.add(cpu[f"{five}, {bare}"].over(cpu[f"{classic}, {bare}"]))
    compare(report, f"{token}: ratio to {peer}", cpu[token], cpu, peer, 2)


def memory(report: Report, site: Site, number: int) -> None:
    name = "a connection with 5 channels"
    measures: dict[str, Callable[[], dict[str, float]]] = {
        name: lambda: kept(partial(CentrifugeTwistd, names=OWN, site=site), number)
    }
    if report.scale.peers:
        peer = "a connection to Centrifugo with 1 channel"
        measures[peer] = partial(report.attempt, peer, lambda: kept(CentrifugoRedis, number))
    found = report.interleave(measures, min(report.scale.rounds, 3))  # it hardly varies
    made = {
        each: Figure(each, "KiB", values["kept"])
        for each, values in found.items()
        if each not in report.missing
    }
    report.add(*made.values())
    report.goal(f"memory of {name}, KiB", made[name], 12)


def run(scale: Scale) -> Report:
    clients, number = scale.pick(2000, 200), scale.pick(10_000, 200)
    handshakes = scale.pick(2000, 100)
    report = Report(
        "multiplexing", scale, clients=clients, connections=number, handshakes=handshakes
    )
    with Site(number) as site:
        fan_out(report, site, clients, scale.pick(4, 1))
        connecting(report, site, handshakes)
        memory(report, site, number)
    return report


if __name__ == "__main__":
    main(run, __doc__)
