"""Periodic work on every websocket, with one timer for all."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Generic, TypeVar

_TICK = 0.25
_LATE = 4  # ticks after the one that was due
_AT_ONCE = 4  # ticks in one turn

Member = TypeVar("Member")


class PeriodicSweep(Generic[Member]):
    """Visits each member once every ``period`` seconds, a few at a time. The first visit comes at a
    random time in the first period, so that members that came together are spread out.

    :param visit: called with the member.
    :param tick: seconds between two portions.
    :param check_after: seconds after a visit at which ``check`` is called with the member.
    :param check_if: called with the member before; the check is left out when this is false. An
        ``attrgetter`` costs next to nothing.
    :param together: that many members may be visited at once. While a few ticks have no more, they
        are waited for together: waking up costs as much as several visits.
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
        check_if: Callable[[Member], object] | None = None,
        together: int = 0,
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
        self._together = together
        # Ticks are counted from when the first member came.
        self._begun = 0.0
        self._ticks = self._due = self._check_from = 0
        self._timer: Any = None

    def add(self, member: Member, *, after: float = 0.0) -> None:
        """Its first visit comes in the first period, or in the part of it that is left ``after``
        a fraction.
        """
        number = len(self._slots)
        slot = self._random.randrange(int(number * after), number)
        if after:
            slot = (self._now + 1 + slot) % number
        self._slot_of[member] = slot
        self._slots[slot].add(member)
        if self._timer is None:
            self._begun, self._ticks, self._check_from = self._clock.seconds(), 0, 0
            self._wait(self._begun)

    def discard(self, member: Member) -> None:
        slot = self._slot_of.pop(member, None)
        if slot is None:
            return
        self._slots[slot].discard(member)
        if not self._slot_of and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, now: float) -> None:
        """Until the next tick, or the next few."""
        most = self._together * len(self._slots) // max(1, len(self._slot_of))
        # A power of two divides `_check_after`: a check comes as long after a visit as it should.
        number = 1 << min(_AT_ONCE, most or 1).bit_length() - 1
        self._due = (self._ticks // number + 1) * number
        due = self._begun + self._due * self._tick
        self._timer = self._clock.callLater(max(0.0, due - now), self._look)

    def _look(self) -> None:
        now = self._clock.seconds()
        before, due = self._ticks, self._due
        # At least the one that is due, however the seconds are rounded.
        self._ticks = max(due, int((now - self._begun) / self._tick))
        if self._ticks - due >= _LATE:
            self._check_from = self._ticks + self._check_after
        # Before the visits: one that fails must not be the last.
        self._wait(now)
        self._turn(self._ticks - before)

    def _turn(self, ticks: int) -> None:
        """Go on by ``ticks``.

        No visit is left out. Checks are, if the process was busy for long: answers may have arrived
        and not been read yet, and members that are visited late need their time to answer. Both are
        checked in the next period.
        """
        check = self._check if self._ticks >= self._check_from else None
        for _ in range(min(ticks, len(self._slots))):
            self._now = (self._now + 1) % len(self._slots)
            for member in tuple(self._slots[self._now]):
                self._visit(member)
            if check is not None:
                visited = self._slots[self._now - self._check_after]
                due = visited if self._check_if is None else filter(self._check_if, visited)
                for member in tuple(due):
                    check(member)
