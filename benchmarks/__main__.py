"""Runs all benchmarks that have a goal, one after another, and reports which goals are met."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import folder_of, make_parser

PROGRAMS = (
    "fanout",
    "bursts",
    "relay",
    "growth",
    "memory",
    "handshakes",
    "publishing",
    "workers",
    "compression",
)


def judged(result: dict[str, Any]) -> list[str]:
    lines = []
    for goal in result["goals"]:
        bound = f"≤ {goal['at most']:.4g}" if "at most" in goal else f"≥ {goal['at least']:.4g}"
        lines.append(
            f"{'met   ' if goal['met'] else 'MISSED'} {result['program']:12} {goal['text']}: "
            f"{goal['median']:.4g}, target {bound}"
        )
    lines += [
        f"       {result['program']:12} {name} not measured: {reason}"
        for name, reason in result["not measured"].items()
    ]
    return lines


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
            summary += judged(json.loads(path.read_text()))
    print("\nThe goals:\n" + "\n".join(summary))
    return status


if __name__ == "__main__":
    given = make_parser(__doc__).parse_args()
    sys.exit(run_all(folder_of(given), sys.argv[1:]))
