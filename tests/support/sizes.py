"""The sizes of the longest tests: small ones for every change, and full ones with
``WS4REDIS_FULL=1``, which ``make test-all`` sets.
"""

from __future__ import annotations

import os

FULL = os.environ.get("WS4REDIS_FULL", "") not in ("", "0")

CYCLES = 10_000 if FULL else 1_000
"""The number of websockets that the load test opens and closes."""

MEBIBYTES = 200 if FULL else 20
"""The amount that is published past a client that never reads."""

SEEDS = 150 if FULL else 8
"""The number of random schedules, of each theme, for clients in the middle of fan-outs."""

BENCHMARKS = (
    (
        "bursts",
        "compression",
        "fanout",
        "growth",
        "handshakes",
        "history",
        "idle",
        "memory",
        "relay",
        "workers",
    )
    if FULL
    else ("handshakes", "idle", "memory")
)
"""The programs of ``benchmarks/`` that run."""


PUBLISHED, CUTS = (18_000, 140) if FULL else (300, 8)
"""The number of messages that are published while a client is cut off so many times."""

CHAOS_LOAD = max(1, int(os.environ.get("WS4REDIS_CHAOS", "1")))
"""Multiplies the load in the tests of outages; ``make chaos`` sets it."""


def described() -> str:
    return (
        f"{CYCLES:,} open/close cycles, {MEBIBYTES} MiB past a slow reader, "
        f"load {CHAOS_LOAD} in outages, {SEEDS} seeds a theme in the stress test, "
        f"benchmarks: {', '.join(BENCHMARKS)}"
    )
