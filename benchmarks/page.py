"""Writes docs/performance.md and its plots from the results of the benchmarks.

Every number on that page comes from ``benchmarks/results``. Nothing is written if one of them is
missing or not good enough: if others took too much of the machine while it was measured, if it has
too few rounds or no other servers, or if it is of another revision than the rest. The program says
which and why, and ends with status 1. If a goal was missed and ``benchmarks.notes`` does not say
why, the program names the goal and also ends with status 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.__main__ import PROGRAMS, disturbed
from benchmarks.conditions import LIMIT, percent
from benchmarks.memory import MOST_ROUNDS
from benchmarks.notes import REASONS
from benchmarks.report import NEVER_IDLE, RESULTS, ROUNDS, missed_by, restless
from benchmarks.servers import ROOT
from benchmarks.summary import OURS, Result, Results, beside, capacity, short, wrapped

DOCS = ROOT / "docs"
ROUNDS_OF = {"memory": MOST_ROUNDS}
"""The rounds of the programs that do not have ``ROUNDS``."""
COMPARING = ("fanout", "memory", "handshakes")
"""The programs that also measure other people's servers."""
INTRODUCTION = """\
# Performance

`make bench` writes this page. Every number on it was printed by a program in `benchmarks/` or is
computed from one, and `benchmarks/results/` keeps the values of all rounds.
"""

METHOD = """\
## How it was measured

The costs are the CPU time of the server's processes as counted by the kernel, on one machine that
also runs the clients and Redis. Compare figures only within a table, and rely on the ratios,
because the microseconds differ between machines. A figure is the median of its rounds. Each round
measures the compared servers in turn. There are so many that `benchmarks.fanout` measures them in
groups, with ours in each.

"Ours" is the server as its users run it: `twistd ws4redis --settings …`, with Django's sessions,
users and authorization, and with rechecks and pings. The clients are a small C program
(`benchmarks/load.c`) that checks the number and the order of all messages.
"""

TITLES = {
    "fanout": "A message to many",
    "bursts": "Many messages to many",
    "relay": "A message to one",
    "growth": "With more clients, and more channels",
    "idle": "Visitors who only wait",
    "memory": "Opening and keeping a connection",
    "handshakes": "Handshakes",
    "publishing": "Publishing from Django",
    "workers": "Several processes",
    "compression": "Compression",
}


def load(program: str, folder: Path = RESULTS) -> Result | None:
    path = folder / f"{program}.json"
    found: Result | None = json.loads(path.read_text()) if path.exists() else None
    return None if found is None or found["quick"] else found


def rounds(result: Result) -> int:
    return max(len(figure["values"]) for figure in result["figures"])


def refusals(results: Results) -> list[str]:
    """Say which results are missing or are not good enough for the page, and why."""
    found = []
    revisions: dict[str, list[str]] = {}
    for program in PROGRAMS:
        result = results.get(program)
        if result is None:
            found.append(f"{program} is not measured")
            continue
        if not result.get("quiet"):
            found.append(f"{program} was not measured on a quiet machine: {disturbed(result)}")
        if rounds(result) < (needed := ROUNDS_OF.get(program, ROUNDS)):
            found.append(f"{program} has {rounds(result)} rounds and not {needed}")
        if program in COMPARING and not result["peers"] and not result["not measured"]:
            found.append(f"{program} was measured without other servers")
        revisions.setdefault(result["versions"].get(OURS, ""), []).append(program)
    if len(revisions) > 1:
        said = ", ".join(f"{each} ({', '.join(of)})" for each, of in revisions.items())
        found.append(f"the results are of different revisions of {OURS}: {said}")
    return found


def bound(goal: Result) -> str:
    return f"≤ {short(goal['at most'])}" if "at most" in goal else f"≥ {short(goal['at least'])}"


def goals_table(results: Results) -> str:
    rows = ["| goal | measured | target | |", "|---|--:|--:|---|"]
    for result in results.values():
        rows += [
            f"| {goal['text']} | {short(goal['median'])} | {bound(goal)} | "
            f"{'met' if goal['met'] else '**missed**'} |"
            for goal in result["goals"]
        ]
        rows += [
            f"| {goal['text']} | not measured: {goal['why']} | {bound(goal)} | |"
            for goal in result.get("goals not measured", ())
        ]
    return "\n".join(rows)


def missed(results: Results) -> tuple[str, list[str]]:
    """Return the page's text about missed goals, and the goals without an explanation."""
    lines, unexplained = [], []
    for result in results.values():
        for goal in result["goals"]:
            if goal["met"]:
                continue
            if goal["text"] not in REASONS:
                unexplained.append(goal["text"])
            why = REASONS.get(goal["text"], "")
            text = f"- **{goal['text']}**: missed by {missed_by(goal)}. {why}".rstrip()
            lines.append(wrapped(text, indent="  "))
    return "\n".join(lines), unexplained


def conditions(results: Results) -> str:
    rows = [
        wrapped(
            f"A figure is measured again if others took more than {LIMIT * 100:g} % of the machine "
            "in the meantime, other virtual machines (steal) included. This is what else ran. The "
            "load average includes the benchmark itself, and the last column is the worst interval."
        ),
        "",
        "| | rounds | load average | steal | others, at most |",
        "|---|--:|--:|--:|--:|",
    ]
    for program, result in results.items():
        found = result["conditions"]
        first, last = found["load average"]
        rows.append(
            f"| `benchmarks.{program}` | {rounds(result)} | {first:.2f} to {last:.2f} | "
            f"{percent(found['steal'])} | {percent(found['most that others took'])} |"
        )
    return "\n".join([*rows, ""])


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
    rows += ["\n" + wrapped(text) for text in restless(result.get(NEVER_IDLE, {}))]
    return "\n".join(rows)


def versions(results: Results) -> str:
    found: dict[str, str] = {}
    for result in results.values():
        found.update(result["versions"])
    return ", ".join(f"{name} {version}" for name, version in found.items())


def page(results: Results, plots: Mapping[str, list[str]]) -> tuple[str, list[str]]:
    text, unexplained = missed(results)
    parts = [INTRODUCTION, capacity(results), beside(results)]
    parts += ["## Goals\n", goals_table(results), ""]
    if text:
        parts += ["These goals were missed:\n", text, ""]
    parts += [METHOD, conditions(results)]
    for program, result in results.items():
        parts.append(f"## {TITLES[program]}\n\n`python -m benchmarks.{program}`: ")
        parts[-1] += figures_table(result)
        parts += [""] + [f"![{name}](performance/{name}.svg)\n" for name in plots.get(program, ())]
    parts.append(f"## Environment\n\n{versions(results)}.\n")
    return "\n".join(parts), unexplained


def write(folder: Path = RESULTS, docs: Path = DOCS) -> int:
    results = {p: found for p in PROGRAMS if (found := load(p, folder)) is not None}
    refused = refusals(results)
    for reason in refused:
        print(f"no page: {reason}")
    if refused:
        return 1
    from benchmarks.plots import draw

    text, unexplained = page(results, draw(results, docs / "performance"))
    (docs / "performance.md").write_text(text)
    print(f"{docs / 'performance.md'}: {', '.join(results)}")
    for goal in unexplained:
        print(f"missed, and benchmarks/notes.py does not explain why: {goal}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(write())
