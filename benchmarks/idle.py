"""What 2,000 idle visitors cost: the server's CPU in each second in which nothing is published.

Each websocket belongs to another logged-in visitor and is subscribed to that visitor's session,
user and groups and to broadcasts. Each round lasts 25 s, so it has a ping to each of them. Rechecks
come every 300 s for each visitor, and the first one at a random time after the handshake. So each
round has a twelfth of them, however long ago the handshakes were.
"""

from __future__ import annotations

import time

from benchmarks.driving import Clock
from benchmarks.memory import EVERYTHING
from benchmarks.opening import Opening
from benchmarks.report import NEVER_IDLE, Figure, Report, Scale, main
from benchmarks.servers import Site, Twistd

PING_PERIOD = 25


def idle(opening: Opening, number: int, seconds: float) -> dict[str, float]:
    """Return the server's CPU in ms a second, and the pings to each visitor."""
    opening.load.start()
    clock, begun = Clock(opening.server), time.monotonic()
    time.sleep(seconds)
    used, _ = clock.per(1)
    passed = time.monotonic() - begun
    heard = opening.load.heard().check_total(0)
    return {
        "cpu": used / 1000 / passed,
        "pings": heard.pings / number,
        NEVER_IDLE: opening.never_idle(),
    }


def run(scale: Scale) -> Report:
    number, seconds = scale.pick(2000, 200), scale.pick(PING_PERIOD, 2)
    report = Report("idle", scale, visitors=number, seconds_of_each_round=seconds)
    with Site(number) as site, Opening(Twistd(site=site), [EVERYTHING]) as opening:
        opening.close()
        opening.open(number)
        name = f"{number:,} idle visitors"
        found = report.interleave({name: lambda: idle(opening, number, seconds)})[name]
    cost = Figure(name, "ms/s", found["cpu"])
    report.goal("idle work for 2,000 authorized visitors, ms a second", cost, 3)
    report.add(Figure(f"{name}, pings to each in a round", "pings", found["pings"]))
    return report


if __name__ == "__main__":
    main(run, __doc__)
