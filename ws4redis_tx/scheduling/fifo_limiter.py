"""A limit to how many ask the authorizer at the same time; the others wait in FIFO order."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ws4redis_tx.scheduling.timeouts import Timeouts

Member = TypeVar("Member")

AT_ONCE = 100
"""How many ask at the same time: enough to keep any authorizer busy, and few enough that rechecks
of open websockets are answered soon.
"""

_GIVEN_UP_AT_ONCE = 200  # others want to be served too

LONGEST_WAIT = 60.0
"""Seconds in the queue, after which the client has probably left."""


class FifoLimiter(Generic[Member]):
    """A queue of members. ``AT_ONCE`` of them, at most, have their turn at the same time.

    :param most: the greatest number of members, including those that have their turn.
    :param begin: called with each member when its turn comes, in the order in which they joined;
        within ``join`` if nobody waits. The turn lasts until the member leaves.
    :param give_up: called with a member whose turn will not come. The member has left by then, and
        may have left before.
    """

    def __init__(
        self,
        most: int,
        begin: Callable[[Member], object],
        give_up: Callable[[Member], object],
        clock: Any,
    ) -> None:
        self._most = most
        self._begin = begin
        self._give_up = give_up
        # By member: how many had been served when its turn began.
        self._having: dict[Member, int] = {}
        self._waiting: OrderedDict[Member, None] = OrderedDict()
        self._waits: Timeouts[Member] = Timeouts(LONGEST_WAIT, self._waited_too_long, clock)
        self._stuck: deque[Member] = deque()
        self._next_portion: Any = None
        self._clock = clock
        self._served = 0
        self._calling = False

    def join(self, member: Member) -> bool:
        """Return whether there was room."""
        if len(self) >= self._most:
            return False
        if len(self._having) < AT_ONCE and not self._waiting:
            self._having[member] = self._served
            self._begin(member)
        else:
            self._waiting[member] = None
            self._waits.add(member)
        return True

    def leave(self, member: Member, *, served: bool = False) -> None:
        """The member was served, or is gone: the next one's turn comes. Idempotent."""
        if self._having.pop(member, None) is not None:
            self._served += served
            if self._waiting:
                self._call()
        elif member in self._waiting:
            del self._waiting[member]
            self._waits.discard(member)

    def overdue(self, member: Member) -> None:
        """The member's turn has lasted too long. If nobody was served meanwhile, nobody will be
        soon, and all who wait are given up.
        """
        if self._having.get(member) == self._served:
            self._stuck.extend(self._waiting)
            self._waiting.clear()
            self._waits.stop()
            if self._next_portion is None:
                self._give_up_some()

    def stop(self) -> None:
        """Leave no timer: all members are gone."""
        self._waits.stop()
        self._stuck.clear()
        if self._next_portion is not None:
            self._next_portion.cancel()
            self._next_portion = None

    def __len__(self) -> int:
        return len(self._having) + len(self._waiting)

    def _call(self) -> None:
        # Not recursively: an authorizer may answer at once.
        if self._calling:
            return
        self._calling = True
        try:
            while self._waiting and len(self._having) < AT_ONCE:
                member, _ = self._waiting.popitem(last=False)
                self._waits.discard(member)
                self._having[member] = self._served
                self._begin(member)
        finally:
            self._calling = False

    def _give_up_some(self) -> None:
        self._next_portion = None
        for _ in range(_GIVEN_UP_AT_ONCE):
            if not self._stuck:
                return
            self._give_up(self._stuck.popleft())
        if self._stuck:
            self._next_portion = self._clock.callLater(0, self._give_up_some)

    def _waited_too_long(self, member: Member) -> None:
        del self._waiting[member]
        self._give_up(member)
