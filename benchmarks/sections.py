"""Writes the figures of some benchmarks into the guides that they belong to.

``python -m benchmarks.sections`` takes them from ``benchmarks/results``. Nothing is written if they
are not good enough: measured quickly, in too few rounds, or while others took too much of the
machine; or if a goal was missed and ``benchmarks.notes`` does not say why. The program says what is
wrong, and ends with status 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.__main__ import disturbed
from benchmarks.notes import REASONS
from benchmarks.page import DOCS, bound, figures_table, load, rounds
from benchmarks.report import RESULTS, ROUNDS, missed_by
from benchmarks.summary import Result, short, wrapped

GUIDES = {"history": "history.md", "multiplexing": "centrifuge.md"}
"""The guide of each program, with a place for its figures."""


def marks(program: str) -> tuple[str, str]:
    """The lines between which the figures stand."""
    return f"<!-- The figures of benchmarks.{program}. -->\n", "<!-- The end of the figures. -->\n"


def refusal(program: str, result: Result | None) -> str:
    """Say why a result is not good enough for a guide; ``""`` if it is."""
    if result is None:
        return f"{program} is not measured"
    if not result.get("quiet"):
        return f"{program} was not measured on a quiet machine: {disturbed(result)}"
    if rounds(result) < ROUNDS:
        return f"{program} has {rounds(result)} rounds and not {ROUNDS}"
    for goal in result["goals"]:
        if not goal["met"] and goal["text"] not in REASONS:
            return f"a goal was missed, and benchmarks/notes.py does not say why: {goal['text']}"
    return ""


def _judged(goal: Result) -> str:
    text = f"- {goal['text']}: {short(goal['median'])}, target {bound(goal)}"
    if not goal["met"]:
        text += f", **missed** by {missed_by(goal)}. {REASONS[goal['text']]}"
    return wrapped(text, indent="  ")


def section(result: Result) -> str:
    text = (
        "These are its figures on one machine. Compare them only with each other, since the "
        "microseconds differ between machines. Each is the median of its rounds."
    )
    goals = map(_judged, result["goals"])
    return "\n".join(["", wrapped(text), "", figures_table(result), "", *goals, "", ""])


def write(program: str, folder: Path = RESULTS, guide: Path | None = None) -> int:
    result = load(program, folder)
    if why := refusal(program, result):
        print(f"no figures: {why}")
        return 1
    assert result is not None
    guide = guide or DOCS / GUIDES[program]
    begin, end = marks(program)
    before, _, rest = guide.read_text().partition(begin)
    _, _, after = rest.partition(end)
    guide.write_text(before + begin + section(result) + end + after)
    print(guide)
    return 0


if __name__ == "__main__":
    sys.exit(max([write(program) for program in GUIDES]))
