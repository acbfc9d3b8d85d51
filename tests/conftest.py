"""The sizes of the longest tests stand at the head of each run."""

from __future__ import annotations

from tests.support import sizes


def pytest_report_header() -> str:
    return f"sizes: {sizes.described()}"
