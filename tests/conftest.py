"""Says how long the longest tests are, and at the end which browser is absent."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.support import sizes


def pytest_report_header() -> str:
    return f"sizes: {sizes.described()}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    )
    for reason, number in reasons.items():
        if reason.startswith(("there is no Chromium", "there is no Firefox")):
            terminalreporter.write_line(f"{number} browser tests were skipped: {reason}")
