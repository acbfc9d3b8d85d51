"""Telling others of an event: once (``Waiters``), or each time it happens (``Callbacks``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

Result = TypeVar("Result")


class Waiters(Generic[Result]):
    """Deferreds that wait for one event. Each may be cancelled, and is forgotten then.

    ``fire`` and ``fail`` go through them in the order in which they were made. A Deferred that is
    made in a callback meanwhile waits for the next event.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Deferred[Result], None] = {}

    def wait(self) -> Deferred[Result]:
        waiting: Deferred[Result] = Deferred(self._forget)
        self._waiting[waiting] = None
        return waiting

    def fire(self, result: Result) -> None:
        for each in self._take_all():
            if not each.called:  # an earlier one's callback may have cancelled it
                each.callback(result)

    def fail(self, failure: Failure) -> None:
        for each in self._take_all():
            if not each.called:
                each.errback(failure)

    def __len__(self) -> int:
        return len(self._waiting)

    def _take_all(self) -> dict[Deferred[Result], None]:
        waiting, self._waiting = self._waiting, {}
        return waiting

    def _forget(self, waiting: Deferred[Result]) -> None:
        self._waiting.pop(waiting, None)


class Callbacks:
    """Functions that are called each time something happens, in the order they were added.

    A function that raises is logged; the others are called all the same.
    """

    def __init__(self) -> None:
        self._functions: dict[object, Callable[[], object]] = {}

    def add(self, function: Callable[[], object]) -> Callable[[], None]:
        """Return a function that removes ``function`` again. That one is idempotent."""
        key = object()
        self._functions[key] = function

        def remove() -> None:
            self._functions.pop(key, None)

        return remove

    def call(self) -> None:
        for key, function in tuple(self._functions.items()):
            if key in self._functions:  # an earlier one may have removed it
                try:
                    function()
                except Exception:
                    _log.failure("A callback failed; the others are called")

    def __len__(self) -> int:
        return len(self._functions)
