"""Writes the figures of ``benchmarks.history`` into docs/history.md, from ``benchmarks/results``.

Nothing is written if they are not good enough: measured quickly, in too few rounds, or while others
took too much of the machine. The program says why, and ends with status 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.__main__ import disturbed
from benchmarks.page import DOCS, bound, figures_table, load, rounds
from benchmarks.report import RESULTS, ROUNDS
from benchmarks.summary import Result, short, wrapped

PAGE = DOCS / "history.md"
BEGIN, END = "<!-- The figures of benchmarks.history. -->\n", "<!-- The end of the figures. -->\n"


def refusal(result: Result | None) -> str:
    """Say why a result is not good enough for the page; ``""`` if it is."""
    if result is None:
        return "history is not measured"
    if not result.get("quiet"):
        return f"history was not measured on a quiet machine: {disturbed(result)}"
    if rounds(result) < ROUNDS:
        return f"history has {rounds(result)} rounds and not {ROUNDS}"
    return ""


def section(result: Result) -> str:
    text = (
        "These are its figures on one machine. Compare them only with each other, since the "
        "microseconds differ between machines. Each is the median of its rounds."
    )
    goals = [
        wrapped(
            f"- {goal['text']}: {short(goal['median'])}, target {bound(goal)}"
            f"{'' if goal['met'] else ', **missed**'}",
            indent="  ",
        )
        for goal in result["goals"]
    ]
    return "\n".join(["", wrapped(text), "", figures_table(result), "", *goals, "", ""])


def write(folder: Path = RESULTS, page: Path = PAGE) -> int:
    result = load("history", folder)
    if why := refusal(result):
        print(f"no figures: {why}")
        return 1
    assert result is not None
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + section(result) + END + after)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(write())
