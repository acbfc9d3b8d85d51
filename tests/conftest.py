"""Prints the sizes of the longest tests at the start of each run."""

from __future__ import annotations

from tests.support import sizes


def pytest_report_header() -> str:
    return f"sizes: {sizes.described()}"
