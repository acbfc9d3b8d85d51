"""Waiting for several Deferreds at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure


def gather(deferreds: Iterable[Deferred[Any]]) -> Deferred[list[Any]]:
    """Fire with all results in order, or fail as soon as one fails; later failures are dropped.

    ``gatherResults`` wraps the failure into another one and logs the others as unhandled. It takes
    three times as long, which each handshake would pay.
    """
    waiting = list(deferreds)
    if not waiting:
        return succeed([])
    if len(waiting) == 1:
        return waiting[0].addCallback(lambda result: [result])
    return _Gathering(waiting).all


def succeeded(deferred: Deferred[Any]) -> bool:
    """Whether it has a result, and no failure."""
    return deferred.called and not deferred.paused and not isinstance(deferred.result, Failure)


class _Gathering:
    def __init__(self, waiting: list[Deferred[Any]]) -> None:
        self.all: Deferred[list[Any]] = Deferred(self._cancel)
        self._waiting = waiting
        self._results: list[Any] = [None] * len(waiting)
        self._left = len(waiting)
        for number, each in enumerate(waiting):
            each.addCallbacks(self._arrived, self._failed, callbackArgs=(number,))

    def _arrived(self, result: Any, number: int) -> None:
        self._results[number] = result
        self._left -= 1
        if not self._left:
            self.all.callback(self._results)

    def _failed(self, failure: Failure) -> None:
        if self._left > 0:
            self._left = -1  # results that arrive later do not bring it to zero
            self.all.errback(failure)

    def _cancel(self, _: object) -> None:
        for each in self._waiting:
            each.cancel()
