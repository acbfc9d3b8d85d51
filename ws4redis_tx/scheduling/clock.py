"""The clock of a reactor's timers."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any


def use_monotonic_clock(reactor: Any, monotonic: Callable[[], float] = monotonic) -> None:
    """Let the timers of ``reactor`` run on a monotonic clock: a step of the system clock, forward
    or back, changes nothing about them. Twisted's own reactors take the time of day.

    From now on ``reactor.seconds()`` continues from the time of day without a step, so that timers
    that are already set keep their times. Idempotent.
    """
    # ``monotonic`` is an argument since libraries that freeze time replace the names in modules.
    offset = reactor.seconds() - monotonic()
    reactor.seconds = lambda: offset + monotonic()
