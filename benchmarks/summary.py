"""The first tables of docs/performance.md: what a server does for how many, and beside others."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.notes import lacked
from benchmarks.servers import Twistd

OURS, BARE = Twistd.name, f"{Twistd.name}, without a site"
IDLE = 10_000
"""The number of idle visitors that the page speaks of."""

Result = dict[str, Any]
Results = Mapping[str, Result]

BESIDE = """\
## Beside other servers

The CPU that a message to 2,000 clients takes for each of them, the memory of an open websocket, and
the CPU that a client takes until it is subscribed. The message comes through Redis if the server
can take it from there. Redis is not included, and neither are the website behind pushpin and the
kernel's memory for sockets. nchan, Centrifugo and pushpin take the message from a POST, whose
parsing is included.

Deliveries were measured in groups of servers, with `ws4redis_tx` in each. So they are compared with
that of their own group: "\N{MULTIPLICATION SIGN} ours" is the median of the ratios of its rounds.
Memory and handshakes of all servers were measured in the same three rounds. Bold means less than
`ws4redis_tx` with sessions. The versions of all packages are at the end of this page.
"""


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 98, subsequent_indent=indent, break_on_hyphens=False)


def short(number: float) -> str:
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) >= 1 else f"{number:.2g}"


def rounded(number: float) -> str:
    """Two significant digits, because more would not be true on another day."""
    return f"{float(f'{number:.2g}'):,.0f}" if number >= 10 else f"{number:.2g}"


def figure(results: Results, program: str, name: str, unit: str) -> Result | None:
    for found in results.get(program, {}).get("figures", ()):
        if (found["name"], found["unit"]) == (name, unit):
            result: Result = found
            return result
    return None


def median(results: Results, program: str, name: str, unit: str) -> float | None:
    found = figure(results, program, name, unit)
    return found["median"] if found else None


@dataclass(frozen=True)
class Capacity:
    """What one process can do a second: a measured rate, or one that is computed from its CPU."""

    text: str
    program: str
    name: str
    unit: str
    parameter: str
    """The parameter of the program that says with how many it was measured."""
    how: str

    @property
    def measured(self) -> bool:
        return self.unit.endswith("/s")


_CAPACITIES = (
    Capacity(
        "messages a second, each to one client",
        *("relay", OURS, "µs/message", "clients"),
        "computed from the CPU of a message; measured with {} clients",
    ),
    Capacity(
        "clients that receive a message every second",
        *("fanout", OURS, "µs/delivery", "clients"),
        "computed from the CPU of a delivery; measured with {} clients",
    ),
    Capacity(
        "deliveries a second, in bursts of 150 messages",
        *("bursts", "bursts, rate", "deliveries/s", "clients"),
        "measured, to {} clients",
    ),
    Capacity(
        "new visitors a second",
        *("handshakes", f"{OURS}, with a session", "µs/handshake", "handshakes"),
        "computed from the CPU of a handshake; measured with {} visitors, 64 at a time",
    ),
    Capacity(
        "visitors a second, if all return at once",
        *("handshakes", "simultaneous reconnects", "handshakes/s", "simultaneous_reconnects"),
        "measured, with {} visitors",
    ),
)


def capacities(results: Results) -> Iterator[tuple[str, str, str]]:
    """Yield what one process can do, how much of it, and how that is known."""
    for each in _CAPACITIES:
        value = median(results, each.program, each.name, each.unit)
        if value:
            number = rounded(value if each.measured else 1e6 / value)
            yield each.text, number, each.how.format(_with(results, each.program, each.parameter))
    for found in results.get("idle", {}).get("figures", ()):
        if found["unit"] == "ms/s":
            share = found["median"] / 10 * IDLE / results["idle"]["parameters"]["visitors"]
            how = f"computed from the CPU of {_with(results, 'idle', 'visitors')} visitors"
            yield f"CPU of {IDLE:,} idle visitors", f"{rounded(share)} % of a core", how
    kept = median(results, "memory", OURS, "KiB/websocket")
    if kept:
        how = f"computed from the memory of {_with(results, 'memory', 'clients')} visitors"
        yield f"memory of {IDLE:,} idle visitors", f"{rounded(kept * IDLE / 1024)} MiB", how


def _with(results: Results, program: str, parameter: str) -> str:
    return f"{results[program]['parameters'][parameter]:,}"


def capacity(results: Results) -> str:
    machine = ", ".join(sorted({result["versions"]["CPU"] for result in results.values()}))
    text = (
        f"This is what one process does on this machine ({machine}), with Django's sessions, users "
        "and authorization. The measured rates are those of a process that shares the machine with "
        "Redis and with the clients. The computed ones are those at which the messages, deliveries "
        "or handshakes alone would take a whole core. They were not tried with so many clients."
    )
    redis = median(results, "relay", f"Redis of {OURS}", "µs/message")
    if redis:
        text += f" Redis takes another {short(redis)} µs of CPU for a message to one client."
    return "\n".join(
        [
            "## How many users, on which machine\n",
            wrapped(text),
            "",
            "| | | |\n|---|--:|---|",
            *(f"| {what} | {number} | {how} |" for what, number, how in capacities(results)),
            "",
        ]
    )


def times_ours(results: Results, name: str) -> float | None:
    """Return the cost of a delivery as a multiple of ours, in the rounds of the same group."""
    ratio = median(results, "fanout", f"{OURS} / {name}", "times")
    if ratio:
        return 1 / ratio
    # The first group has the peers without such a figure, and so the figure of ours.
    ours, theirs = (figure(results, "fanout", each, "µs/delivery") for each in (OURS, name))
    if ours is None or theirs is None:
        return None
    pairs = zip(theirs["values"], ours["values"], strict=False)
    return statistics.median(their / our for their, our in pairs)


def beside(results: Results) -> str:
    """Return the table of all servers, the cheapest delivery first."""
    times = {name: times_ours(results, name) for name in (OURS, BARE, *peers(results))}
    rows = [
        BESIDE,
        "| | µs a delivery | \N{MULTIPLICATION SIGN} ours | KiB a connection | µs a handshake | "
        "what it did not do here | versions |",
        "|---|--:|--:|--:|--:|---|---|",
    ]
    first = (OURS, BARE)
    others = sorted(peers(results), key=lambda name: times[name] or float("inf"))
    for name in [*first, *others]:
        delivery = median(results, "fanout", name, "µs/delivery")
        better = times[name] is not None and times[name] < 1 and name not in first
        cells = [_cell(delivery, better), _cell(times[name], better)]
        for unit in ("KiB/websocket", "µs/handshake"):
            cost, ours = (median(results, "memory", each, unit) for each in (name, OURS))
            better = None not in (cost, ours) and cost < ours and name not in first
            cells.append(_cell(cost, better))
        versions = ", ".join(own_versions(name, peers(results).get(name, {})))
        rows.append(f"| {name} | {' | '.join(cells)} | {lacked(name) or ''} | {versions} |")
    for program, what in (("fanout", "delivery"), ("memory", "connection")):
        for name, why in results.get(program, {}).get("not measured", {}).items():
            rows.append("\n" + wrapped(f"A {what} of {name} was not measured: {why}"))
    return "\n".join([*rows, ""])


def _cell(value: float | None, bold: bool) -> str:
    if value is None:
        return "—"
    return f"**{short(value)}**" if bold else short(value)


def own_versions(name: str, versions: Mapping[str, str]) -> list[str]:
    """Return the versions of the packages that a server is named after, or else all of its."""
    words = re.split(r"[\s,+]+", name.lower())
    named = [
        f"{package} {version}"
        for package, version in versions.items()
        if any(word in package.lower() or package.lower() in word for word in words)
    ]
    return named or [f"{package} {version}" for package, version in versions.items()]


def peers(results: Results) -> dict[str, Mapping[str, str]]:
    """Return the versions of each other server that was measured."""
    found: dict[str, Mapping[str, str]] = {}
    for program in ("fanout", "memory"):
        found.update(results.get(program, {}).get("peers", {}))
    return found
