"""Timeouts of many members, with one timer for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Member = TypeVar("Member")


class Timeouts(Generic[Member]):
    """Calls ``late`` with each member that is still here ``seconds`` after it was added.

    The timer keeps running when the last member leaves, since most leave long before it is due.
    """

    def __init__(self, seconds: float, late: Callable[[Member], object], clock: Any) -> None:
        self._seconds = seconds
        self._late = late
        self._clock = clock
        self._due: dict[Member, float] = {}  # in the order in which they are due
        self._timer: Any = None

    def add(self, member: Member) -> None:
        """A member that is added again has all its time again."""
        self._due.pop(member, None)
        self._due[member] = self._clock.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._look)

    def discard(self, member: Member) -> None:
        self._due.pop(member, None)

    def stop(self) -> None:
        """Forget all members, and leave no timer."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __contains__(self, member: Member) -> bool:
        return member in self._due

    def __len__(self) -> int:
        return len(self._due)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        late = []
        for member, due in self._due.items():
            if due > now:
                self._timer = self._clock.callLater(due - now, self._look)
                break
            late.append(member)
        for member in late:
            # Meanwhile one of them may have left, or started again.
            if self._due.get(member, now + 1) <= now:
                del self._due[member]
                self._late(member)
