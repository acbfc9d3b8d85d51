"""The first tables of docs/performance.md: what a server does for how many, and beside others."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.notes import lacks
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
can take it from there. Bold figures are lower than those of `ws4redis_tx` with sessions. Redis is
not included, and neither is the kernel's memory for sockets. The versions of all packages are at
the end of this page.
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


def median(results: Results, program: str, name: str, unit: str) -> float | None:
    for figure in results.get(program, {}).get("figures", ()):
        if (figure["name"], figure["unit"]) == (name, unit):
            value: float = figure["median"]
            return value
    return None


_CAPACITIES = (
    ("messages a second, each to one client", "relay", OURS, "µs/message"),
    ("clients that receive a message every second", "fanout", OURS, "µs/delivery"),
    ("deliveries a second, in bursts of 150 messages", "bursts", "bursts", "µs/delivery"),
    ("new visitors a second", "handshakes", f"{OURS}, with a session", "µs/handshake"),
    (
        "visitors a second, if all return at once",
        "handshakes",
        "simultaneous reconnects",
        "µs/handshake",
    ),
)


def capacities(results: Results) -> Iterator[tuple[str, str]]:
    """Yield what one process can do, if it has a core of its own."""
    for text, program, name, unit in _CAPACITIES:
        cost = median(results, program, name, unit)
        if cost:
            yield text, rounded(1e6 / cost)
    for figure in results.get("idle", {}).get("figures", ()):
        if figure["unit"] == "ms/s":
            share = figure["median"] / 10 * IDLE / results["idle"]["parameters"]["visitors"]
            yield f"CPU of {IDLE:,} idle visitors", f"{rounded(share)} % of a core"
    kept = median(results, "memory", OURS, "KiB/websocket")
    if kept:
        yield f"memory of {IDLE:,} idle visitors", f"{rounded(kept * IDLE / 1024)} MiB"


def capacity(results: Results) -> str:
    machine = ", ".join(sorted({result["versions"]["CPU"] for result in results.values()}))
    parts = [
        "## How many users, on which machine\n",
        wrapped(
            f"One process that has a core of this machine ({machine}) to itself takes, with "
            "Django's sessions, users and authorization:"
        ),
        "",
        "| | |\n|---|--:|",
        *(f"| {text} | {number} |" for text, number in capacities(results)),
    ]
    text = "Each line but the last two takes the whole core."
    redis = median(results, "relay", f"Redis of {OURS}", "µs/message")
    if redis:
        text += f" Redis takes another {short(redis)} µs for a message to one client."
    return "\n".join([*parts, "", wrapped(text), ""])


def beside(results: Results) -> str:
    """Return the table of all servers, the cheapest delivery first."""
    costs = {
        name: (
            median(results, "fanout", name, "µs/delivery"),
            median(results, "memory", name, "KiB/websocket"),
            median(results, "memory", name, "µs/handshake"),
        )
        for name in (OURS, BARE, *peers(results))
    }
    rows = [
        BESIDE,
        "| | µs a delivery | KiB a connection | µs a handshake | does not do | versions |",
        "|---|--:|--:|--:|---|---|",
    ]
    ours = costs[OURS]
    first = [name for name in (OURS, BARE) if any(costs[name])]
    others = sorted(costs.keys() - {OURS, BARE}, key=lambda name: costs[name][0] or float("inf"))
    for name in [*first, *others]:
        cells = [
            "—"
            if cost is None
            else f"**{short(cost)}**"
            if least is not None and cost < least and name not in first
            else short(cost)
            for cost, least in zip(costs[name], ours, strict=True)
        ]
        note = {OURS: "", BARE: "knows no visitors"}.get(name, lacks(name) or "")
        versions = ", ".join(own_versions(name, peers(results).get(name, {})))
        rows.append(f"| {name} | {' | '.join(cells)} | {note} | {versions} |")
    for program, what in (("fanout", "delivery"), ("memory", "connection")):
        for name, why in results.get(program, {}).get("not measured", {}).items():
            rows.append("\n" + wrapped(f"A {what} of {name} was not measured: {why}"))
    return "\n".join([*rows, ""])


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
