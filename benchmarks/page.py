"""Writes docs/performance.md and its plots from the results of the benchmarks.

Every number on that page comes from ``benchmarks/results``. If a goal was missed and ``REASONS``
does not explain it, the program names the goal and ends with status 1.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "performance"  # equal plots make equal files

from matplotlib import pyplot  # noqa: E402

from benchmarks.__main__ import PROGRAMS  # noqa: E402
from benchmarks.report import RESULTS  # noqa: E402
from benchmarks.servers import ROOT  # noqa: E402

DOCS = ROOT / "docs"
PLOTS = DOCS / "performance"
OURS, THEIRS, LOOPS = "#0b6e4f", "#9aa5b1", "#d9a441"

Result = dict[str, Any]

INTRODUCTION = """\
# Performance

`make bench` writes this page. Every number on it was printed by a program in `benchmarks/`, and
`benchmarks/results/` keeps the values of all rounds. The costs are the CPU time of the server's
processes as counted by the kernel, on one machine with two shared cores that also runs the clients
and Redis. Compare figures only within a table, and rely on the ratios, because the microseconds
differ between machines. Most figures are the median of five rounds, and each round measures all of
the compared servers in turn. Memory and simultaneous reconnects have three rounds, and the
sustained load has one.

"Ours" is the server as its users run it: `twistd ws4redis --settings …`, with Django's sessions,
users and authorization, and with rechecks and pings. The clients are a small C program
(`benchmarks/load.c`) that checks the number and the order of all messages.
"""

TITLES = {
    "fanout": "A message to many",
    "bursts": "Many messages to many",
    "relay": "A message to one",
    "growth": "With more clients, and more channels",
    "memory": "Memory",
    "handshakes": "Handshakes",
    "publishing": "Publishing from Django",
    "workers": "Several processes",
    "compression": "Compression",
}

# The reasons why goals were missed, by the goals' texts.
REASONS = {
    "one to one: ratio to the minimal relay": "The relay knows no visitors. Our server also pings "
    "its two thousand visitors every 25 s, and looks up each one's session, user and groups every "
    "300 s. The figure includes this work, divided among the messages. `python -m "
    "benchmarks.relay` also prints the ratio without it.",
    "fan-out: ratio to the C loop (moonshot)": "A Python loop over `socket.send` alone costs more "
    "than the C loop. In addition, each delivery makes two Python calls and has to wait for the "
    "memory of three objects.",
    "sustained load: growth of latency, with no message lost": "No message was lost. The server "
    "shares its two cores with the clients, Redis and other programs, so the duration of a burst "
    "varies from second to second.",
    "handshake with a session: ratio to one without + lookup": "The lookup runs in a thread, "
    "because it may block, and the two threads compete for the interpreter lock. The rest is the "
    "cost of making the request and the rights for Django.",
    "simultaneous reconnects: most that overtook one": "The server asks Django in the order of "
    "arrival. While Django is slow, a second thread helps, and the server sends whichever answer "
    "is ready first.",
    "publishing to one channel: ratio to the client's pipeline": "The calling thread passes the "
    "message to the reactor thread and waits. This wakes a sleeping thread twice, which takes "
    "about as long as the client's whole pipeline.",
}


def load(program: str) -> Result | None:
    path = RESULTS / f"{program}.json"
    found: Result | None = json.loads(path.read_text()) if path.exists() else None
    return None if found is None or found["quick"] else found


def short(number: float) -> str:
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) >= 1 else f"{number:.2g}"


def bound(goal: Result) -> str:
    return f"≤ {short(goal['at most'])}" if "at most" in goal else f"≥ {short(goal['at least'])}"


def goals_table(results: dict[str, Result]) -> str:
    rows = ["| goal | measured | target | |", "|---|---|---|---|"]
    for result in results.values():
        rows += [
            f"| {goal['text']} | {short(goal['median'])} | {bound(goal)} | "
            f"{'met' if goal['met'] else '**missed**'} |"
            for goal in result["goals"]
        ]
    return "\n".join(rows)


def missed(results: dict[str, Result]) -> tuple[str, list[str]]:
    """Return the page's text about missed goals, and the goals without an explanation."""
    lines, unexplained = [], []
    for result in results.values():
        for goal in result["goals"]:
            if goal["met"]:
                continue
            if goal["text"] not in REASONS:
                unexplained.append(goal["text"])
            limit = goal.get("at most", goal.get("at least"))
            off = abs(goal["median"] / limit - 1) * 100
            why = REASONS.get(goal["text"], "")
            by = f"{off:.0f} %" if off >= 1 else "less than 1 %"
            lines.append(f"- **{goal['text']}**: missed by {by}. {why}".rstrip())
    return "\n".join(lines), unexplained


def figures_table(result: Result) -> str:
    parameters = ", ".join(
        f"{name.replace('_', ' ')}: {value}" for name, value in result["parameters"].items()
    )
    rows = [parameters, "", "| | median | lowest | highest | |", "|---|--:|--:|--:|---|"]
    rows += [
        f"| {figure['name']} | {short(figure['median'])} | {short(figure['lowest'])} | "
        f"{short(figure['highest'])} | {figure['unit']} |"
        for figure in result["figures"]
    ]
    rows += [
        f"| {name} | not measured: {why} | | | |" for name, why in result["not measured"].items()
    ]
    return "\n".join(rows)


def bars(name: str, title: str, unit: str, figures: list[Result], *, scale: str = "linear") -> None:
    """Draw a horizontal bar for each figure, with ours on top and the range of its rounds."""
    figures = figures[::-1]
    values = [figure["median"] for figure in figures]
    spread = [
        [figure["median"] - figure["lowest"] for figure in figures],
        [figure["highest"] - figure["median"] for figure in figures],
    ]
    plot, axes = pyplot.subplots(figsize=(7.5, 0.8 + 0.42 * len(figures)))
    axes.barh(
        [figure["name"] for figure in figures],
        values,
        xerr=spread,
        color=[_color(figure["name"]) for figure in figures],
        error_kw={"ecolor": "#555555", "lw": 1},
    )
    axes.bar_label(axes.containers[-1], [f"  {short(value)}" for value in values])
    axes.set_xscale(scale)
    axes.margins(x=0.15)
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left", fontsize=11)
    _save(plot, name)


def lines(name: str, title: str, label: str, series: dict[str, list[tuple[float, float]]]) -> None:
    plot, axes = pyplot.subplots(figsize=(7.5, 3))
    for what, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=what)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("number of clients or channels")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left", fontsize=11)
    _save(plot, name)


def _color(name: str) -> str:
    if "ws4redis" in name or name in ("bursts", "single messages"):
        return OURS
    return LOOPS if "loop" in name or "relay" in name else THEIRS


def _save(plot: Any, name: str) -> None:
    for axes in plot.axes:
        axes.spines[["top", "right"]].set_visible(False)
    PLOTS.mkdir(exist_ok=True)
    plot.tight_layout()
    plot.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
    pyplot.close(plot)


def draw_fanout(result: Result, bursts: Result | None) -> list[str]:
    costs = [
        figure
        for figure in result["figures"]
        if figure["unit"] == "µs/delivery" and not figure["name"].startswith("Redis")
    ]
    bars("delivery", "CPU per delivery, 2,000 clients", "µs (logarithmic)", costs, scale="log")
    rates = [_rate(figure) for figure in costs]
    if bursts is not None:
        burst = next(figure for figure in bursts["figures"] if figure["name"] == "bursts")
        rates.insert(0, _rate({**burst, "name": "ws4redis_tx, bursts of 150"}))
    bars(
        "deliveries",
        "Deliveries per second of CPU",
        "deliveries (logarithmic)",
        rates,
        scale="log",
    )
    latencies = [
        {**figure, "name": f"{figure['name'].removesuffix(', latency')}, {figure['unit'][4:]}"}
        for figure in result["figures"]
        if figure["unit"].startswith("ms")
    ]
    bars(
        "latency",
        "Time from publishing until a client has the message, 2,000 clients",
        "ms (logarithmic)",
        latencies,
        scale="log",
    )
    return ["delivery", "deliveries", "latency"]


def _rate(figure: Result) -> Result:
    """Return the inverse of a cost: a number per second."""
    low, high = 1e6 / figure["highest"], 1e6 / figure["lowest"]
    return {
        "name": figure["name"],
        "median": 1e6 / figure["median"],
        "lowest": low,
        "highest": high,
    }


def draw_growth(result: Result) -> list[str]:
    series: dict[str, list[tuple[float, float]]] = {}
    for figure in result["figures"]:
        what, _, ratio = figure["name"].partition(": ")
        clients = what.endswith("clients")
        if ratio == ("ours, deliveries alone / C loop" if clients else "ours / C loop"):
            words = what.split()
            number = next(word for word in words if word[0].isdigit())
            channels = "existing channels" if "existing" in words else "channels published to"
            about = "clients" if clients else channels
            series.setdefault(about, []).append((float(number.replace(",", "")), figure["median"]))
    lines("growth", "CPU per delivery, as a ratio to the C loop", "ratio", series)
    return ["growth"]


def draw_memory(result: Result) -> list[str]:
    figures = [figure for figure in result["figures"] if figure["unit"].startswith("KiB")]
    bars("memory", "Memory of an idle connection", "KiB", figures)
    return ["memory"]


def draw(results: dict[str, Result]) -> dict[str, list[str]]:
    """Draw the plots, and return their names for each program."""
    plots = {}
    if "fanout" in results:
        plots["fanout"] = draw_fanout(results["fanout"], results.get("bursts"))
    if "growth" in results:
        plots["growth"] = draw_growth(results["growth"])
    if "memory" in results:
        plots["memory"] = draw_memory(results["memory"])
    return plots


def versions(results: dict[str, Result]) -> str:
    found: dict[str, str] = {}
    for result in results.values():
        found.update(result["versions"])
    return ", ".join(f"{name} {version}" for name, version in found.items())


def page(results: dict[str, Result], plots: dict[str, list[str]]) -> tuple[str, list[str]]:
    text, unexplained = missed(results)
    parts = [INTRODUCTION, "## Goals\n", goals_table(results), ""]
    if text:
        parts += ["These goals were missed:\n", text, ""]
    for program, result in results.items():
        parts.append(f"## {TITLES[program]}\n\n`python -m benchmarks.{program}`: ")
        parts[-1] += figures_table(result)
        parts += [""] + [f"![{name}](performance/{name}.svg)\n" for name in plots.get(program, ())]
    parts.append(f"## Environment\n\n{versions(results)}.\n")
    return "\n".join(parts), unexplained


def write() -> int:
    results = {program: found for program in PROGRAMS if (found := load(program)) is not None}
    text, unexplained = page(results, draw(results))
    (DOCS / "performance.md").write_text(text)
    print(f"{DOCS / 'performance.md'}: {', '.join(results)}")
    for goal in unexplained:
        print(f"missed, and benchmarks/page.py does not explain why: {goal}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(write())
