"""Runs all benchmarks that have a goal, one after another, and reports which goals are met."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.conditions import LIMIT, percent, said
from benchmarks.processes import no_descendants_left
from benchmarks.report import folder_of, judged, make_parser

PROGRAMS = (
    "fanout",
    "bursts",
    "relay",
    "growth",
    "idle",
    "memory",
    "handshakes",
    "publishing",
    "workers",
    "compression",
)


def summarized(result: dict[str, Any]) -> list[str]:
    program = f"{result['program']:12}"
    goals = [*result["goals"], *result.get("goals not measured", ())]
    lines = [f"{program} {judged(goal)}" for goal in goals]
    lines += [
        f"{program}        {name} not measured: {reason}"
        for name, reason in result["not measured"].items()
    ]
    if not result["quiet"]:
        lines.append(f"{program} NOT QUIET {disturbed(result)}")
    return lines


def disturbed(result: dict[str, Any]) -> str:
    """Say who took how much while a result was measured."""
    conditions = result.get("conditions")
    if conditions is None:
        return "nobody has watched what else ran"
    share = percent(conditions["most that others took"])
    return (
        f"others took {share} of {conditions['CPUs']} CPUs, more than {LIMIT * 100:g} %, "
        f"during {conditions['during']}: {said(conditions['programs'])}"
    )


def run_all(folder: Path, options: list[str]) -> int:
    """Run each program in a separate process. A failure does not stop the other programs."""
    summary, status = [], 0
    for program in PROGRAMS:
        path = folder / f"{program}.json"
        path.unlink(missing_ok=True)
        failed = subprocess.call([sys.executable, "-m", f"benchmarks.{program}", *options])
        if failed:
            status = 1
            summary.append(f"FAILED {program:12} with status {failed}; see above")
        else:
            summary += summarized(json.loads(path.read_text()))
    print("\nThe goals:\n" + "\n".join(summary))
    return status


if __name__ == "__main__":
    given = make_parser(__doc__).parse_args()
    with no_descendants_left():
        status = run_all(folder_of(given), sys.argv[1:])
    sys.exit(status)
