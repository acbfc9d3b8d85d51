"""A machine on which other programs run, for the tests of what watches it."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.conditions import Look, Process, Watch


class Machine:
    """A machine on which others take the ``shares`` one after another: each time that something is
    measured or waited for, the next one, and in the end the last one for ever.
    """

    def __init__(self, *shares: float) -> None:
        self._shares = list(shares)
        self._now = 0.0
        self._used = 0.0
        self.waits = 0
        self.measured: list[int] = []

    def look(self) -> Look:
        return Look(self._now, 0.0, {(20, 0): Process("pytest", 1, self._used, False)})

    def sleep(self, seconds: float) -> None:
        self.waits += 1
        self.go_on(seconds)

    def measure(self) -> int:
        self.go_on(5.0)
        self.measured.append(len(self.measured))
        return self.measured[-1]

    def go_on(self, seconds: float) -> None:
        share = self._shares.pop(0) if len(self._shares) > 1 else self._shares[0]
        self._now += seconds
        self._used += share * seconds * (os.cpu_count() or 1)

    def watch(self, **options: Any) -> Watch:
        return Watch(look=self.look, sleep=self.sleep, load=lambda: 1.5, **options)
