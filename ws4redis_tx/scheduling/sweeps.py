"""Periodic work on every websocket, with one timer for all."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Generic, TypeVar

_TICK = 0.25
_STILL_PUNCTUAL = 4  # ticks in one turn

Member = TypeVar("Member")


class PeriodicSweep(Generic[Member]):
    """Visits each member once every ``period`` seconds, a few at a time. The first visit comes at a
    random time in the first period, so that members that came together are spread out.

    :param visit: called with the member.
    :param tick: seconds between two portions.
    :param check_after: seconds after a visit at which ``check`` is called with the member.
    :param check_if: called with the member before; the check is left out when this is false. An
        ``attrgetter`` costs next to nothing.
    """

    def __init__(
        self,
        period: float,
        visit: Callable[[Member], object],
        clock: Any,
        random: Random,
        *,
        tick: float = _TICK,
        check_after: float = 0.0,
        check: Callable[[Member], object] | None = None,
        check_if: Callable[[Member], object] = bool,
    ) -> None:
        self._visit = visit
        self._check = check
        self._check_if = check_if
        self._check_after = round(check_after / tick)
        self._random = random
        self._slots: list[set[Member]] = [set() for _ in range(max(1, round(period / tick)))]
        self._slot_of: dict[Member, int] = {}
        self._now = 0
        self._clock = clock
        self._tick = tick
        # Ticks are counted from when the first member came.
        self._begun = 0.0
        self._ticks = 0
        self._timer: Any = None

    def add(self, member: Member) -> None:
        slot = self._random.randrange(len(self._slots))
        self._slot_of[member] = slot
        self._slots[slot].add(member)
        if self._timer is None:
            self._begun, self._ticks = self._clock.seconds(), 0
            self._timer = self._clock.callLater(self._tick, self._look)

    def discard(self, member: Member) -> None:
        slot = self._slot_of.pop(member, None)
        if slot is None:
            return
        self._slots[slot].discard(member)
        if not self._slot_of and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._clock.seconds()
        ticks = int((now - self._begun) / self._tick)
        passed, self._ticks = ticks - self._ticks, ticks
        # Before the visits: one that fails must not be the last.
        following = self._begun + (ticks + 1) * self._tick
        self._timer = self._clock.callLater(max(0.0, following - now), self._look)
        self._turn(passed)

    def _turn(self, ticks: int) -> None:
        """Go on by ``ticks``, which is more than one when the process was busy.

        No visit is left out. Checks are, if the process was busy for long: the answers may have
        arrived and not been read yet. They are made in the next period.
        """
        check = self._check if ticks <= _STILL_PUNCTUAL else None
        for _ in range(min(ticks, len(self._slots))):
            self._now = (self._now + 1) % len(self._slots)
            for member in tuple(self._slots[self._now]):
                self._visit(member)
            if check is not None:
                due = self._slots[self._now - self._check_after]
                for member in tuple(filter(self._check_if, due)):
                    check(member)
