"""The lines that a test makes the log print."""

from __future__ import annotations

from typing import Any

from twisted.logger import formatEvent, globalLogPublisher


def log_lines(test: Any) -> list[str]:
    """A list of all log lines from now on, until the end of the test."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    test.addCleanup(globalLogPublisher.removeObserver, observe)
    return lines
