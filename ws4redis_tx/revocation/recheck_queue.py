"""Asking the authorizer again, about many websockets, without getting in the way of handshakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

Member = TypeVar("Member")

FEWEST, MOST = 2, 64
"""How many are rechecked at the same time: a few while answers are slow, and more while they are
quick, as they share queries.
"""

QUICK = 0.05
"""Seconds. An answer within them lets one more be rechecked at the same time."""

_A_TURN = MOST  # an authorizer that answers at once would keep the reactor busy


class RecheckQueue(Generic[Member]):
    """A queue in which each member waits once. Urgent members go before routine ones. A member that
    is added while its check runs is checked again, as the check may have read old data.

    :param check: called with the member; the next one's turn comes when its Deferred fires, which
        must not fail.
    """

    def __init__(self, check: Callable[[Member], Deferred[None]], reactor: Any) -> None:
        self._check = check
        self._reactor = reactor
        self._urgent: dict[Member, None] = {}
        self._routine: dict[Member, None] = {}
        self._running: dict[Member, Deferred[None] | None] = {}
        self._at_once = FEWEST
        self._turn: Any = None

    def soon(self, member: Member) -> None:
        self._routine.pop(member, None)
        self._urgent[member] = None
        self._wake()

    def eventually(self, member: Member) -> None:
        if member not in self._urgent:
            self._routine[member] = None
            self._wake()

    def discard(self, member: Member) -> None:
        """The member is gone: its check is cancelled."""
        self._urgent.pop(member, None)
        self._routine.pop(member, None)
        checking = self._running.get(member)
        if checking is not None:
            checking.cancel()
        if self._turn is not None and not len(self):
            self._turn.cancel()
            self._turn = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._urgent) + len(self._routine)

    def _wake(self) -> None:
        if self._turn is None:
            self._turn = self._reactor.callLater(0, self._go)

    def _go(self) -> None:
        self._turn = None
        for _ in range(_A_TURN):
            member = self._next()
            if member is None:
                return
            self._running[member] = None
            checking = self._running[member] = self._check(member)
            checking.addBoth(self._done, member, self._reactor.seconds())
        self._wake()

    def _next(self) -> Member | None:
        if len(self._running) < self._at_once:
            for queue in (self._urgent, self._routine):
                for member in queue:
                    if member not in self._running:
                        del queue[member]
                        return member
        return None

    def _done(self, _: object, member: Member, since: float) -> None:
        del self._running[member]
        quick = self._reactor.seconds() - since <= QUICK
        self._at_once = min(self._at_once + 1, MOST) if quick else FEWEST
        if self._urgent or self._routine:
            self._wake()
