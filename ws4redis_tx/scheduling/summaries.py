"""Sums up log lines that many clients, or one, can cause again and again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

PERIOD = 60.0
"""Seconds for which lines are summed up."""

DIFFERENT = 5
"""Different lines of one kind that are written in a period."""

_MANY_KINDS = 64


def write_sum(line: str, count: int, equal: bool) -> None:
    """Log how many lines like ``line`` were left out."""
    text = "{count} more like this in the last minute: {line}"
    if not equal:
        text = "{count} more of this kind in the last minute, the latest: {line}"
    _log.info(text, count=count, line=line)


def place(failure: Failure) -> object:
    """Where it was raised: failures from one place are equal."""
    frames = failure.frames
    return frames[-1][1:3] if frames else None


class Summaries:
    """Says which lines are to be written, and counts the others.

    Of equal lines, the first is written. Of different lines of one kind, ``different`` are. At the
    end of the period, the others are told: for each line that
    came again, and for each kind with its latest line. Lines that came again are not new in the
    next period.

    The timer runs only while something is counted.
    """

    def __init__(self, clock: Any) -> None:
        self.different = DIFFERENT
        self._clock = clock
        self._since = 0.0
        # By kind: how often each line came again, by its key; and its text.
        self._lines: dict[Hashable, dict[Hashable, list[Any]]] = {}
        # By kind: the number of other lines, and the latest of them.
        self._others: dict[Hashable, list[Any]] = {}
        self._timer: Any = None

    def admits(self, kind: Hashable, line: str, key: Hashable = None) -> bool:
        """Whether to write ``line`` now. Lines with the same ``key`` are equal; it defaults to the
        line itself.
        """
        if self._timer is None and self._clock.seconds() - self._since >= PERIOD:
            self._begin()
        if kind not in self._lines and len(self._lines) >= _MANY_KINDS:
            kind = None
        lines = self._lines.setdefault(kind, {})
        key = line if key is None else key
        if key in lines:
            lines[key][0] += 1
            self._count()
        elif len(lines) < self.different:
            lines[key] = [0, line]
            return True
        else:
            self.leave_out(kind, line)
        return False

    def leave_out(self, kind: Hashable, line: str) -> None:
        """Count ``line`` among the others of its kind."""
        if kind not in self._others and len(self._others) >= _MANY_KINDS:
            kind = None
        other = self._others.setdefault(kind, [0, line])
        other[0] += 1
        other[1] = line
        self._count()

    def stop(self) -> None:
        """Tell what was counted, and leave no timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._sum_up()

    def _count(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(PERIOD, self._sum_up)

    def _sum_up(self) -> None:
        self._timer = None
        lines, others = self._lines, self._others
        self._begin()
        for kind, each in lines.items():
            for key, (count, line) in each.items():
                if count:
                    self._lines.setdefault(kind, {})[key] = [0, line]
                    write_sum(line, count, True)
        for count, line in others.values():
            write_sum(line, count, False)

    def _begin(self) -> None:
        self._since = self._clock.seconds()
        self._lines, self._others = {}, {}
