"""Calls that are made one after another. Knows Twisted, and nothing of what is called."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

# Seconds that one call may take.
LIMIT = 10.0


class SerialQueue:
    """Makes one call at a time, in the order in which they were added, once it was started.

    A function may return a Deferred or a coroutine. The next call begins when that is done and its
    callbacks have run. A call that takes longer than ``LIMIT`` is cancelled, and fails with
    ``TimeoutError``.
    """

    __slots__ = ("_calling", "_clock", "_started", "_under_way", "_waiting")

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._under_way: Deferred[Any] | None = None
        self._calling = False
        self._started = False

    def start(self) -> None:
        """Idempotent."""
        self._started = True
        self._call()

    def add(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call ``function`` when its turn comes, and fire with its answer."""
        outcome: Deferred[Any] = Deferred()
        self._waiting.append((outcome, function, arguments))
        self._call()
        return outcome

    def _call(self) -> None:
        """In a loop, not recursively: many may answer at once."""
        if self._calling or not self._started:
            return
        self._calling = True
        while self._waiting and self._under_way is None:
            outcome, function, arguments = self._waiting.popleft()
            answer = self._under_way = call(self._clock, function, *arguments)
            answer.addBoth(self._answered, outcome)
        self._calling = False

    def _answered(self, answer: Any, outcome: Deferred[Any]) -> None:
        self._under_way = None
        outcome.callback(answer)
        self._call()


def call(clock: Any, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Call ``function`` and fire with its answer. Cancelled after ``LIMIT``, as said above."""
    return maybeDeferred(function, *arguments).addTimeout(LIMIT, clock, _too_long)


def _too_long(answer: object, limit: float) -> Any:
    raise TimeoutError(f"It took longer than {limit:g} s, and was cancelled.")
