"""Turns, one after another, for members that may have much to do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.logger import Logger

_log = Logger()

TURN, TURN_STEPS = 0.001, 32
"""Seconds and steps, whichever are over first, after which the next member has its turn."""

SLICE = 0.004
"""Seconds of turns after which everything else in the process has its turn."""

Member = TypeVar("Member")


class RoundRobin(Generic[Member]):
    """Members take turns, and let the reactor go on after each slice of time.

    :param step: called with a member to do a small part of its work. It returns whether there is
        more. If it raises, the failure is logged, and the member has left.
    """

    def __init__(self, step: Callable[[Member], bool], clock: Any) -> None:
        self._step = step
        self._clock = clock
        self._waiting: OrderedDict[Member, None] = OrderedDict()
        # Seconds of turns since the reactor went on.
        self._used = 0.0
        self._next_slice: Any = None
        self._in_turn = False

    def join(self, member: Member) -> None:
        """The member has something to do. Its turn comes at once, unless others wait, or the slice
        is over. Idempotent while it waits. A member must not join during its own turn.
        """
        if self._next_slice is None and not self._in_turn:
            self._take_turn(member)
        else:
            self._waiting[member] = None
        self._go_on_later()

    def _run(self) -> None:
        self._next_slice = None
        self._used = 0.0
        while self._waiting and self._used < SLICE:
            self._take_turn(self._waiting.popitem(last=False)[0])
        self._go_on_later()

    def _go_on_later(self) -> None:
        if self._next_slice is None and (self._waiting or self._used >= SLICE):
            self._next_slice = self._clock.callLater(0, self._run)

    def _take_turn(self, member: Member) -> None:
        self._in_turn = True
        started = now = self._clock.seconds()
        try:
            for _ in range(TURN_STEPS):
                more = self._step(member)
                now = self._clock.seconds()
                if not more or now - started >= TURN:
                    break
            if more:
                self._waiting[member] = None
        except Exception:
            _log.failure("A turn failed")
        finally:
            self._in_turn = False
            self._used += max(0.0, now - started)  # a clock may be set back
