"""Ending those that lost something, without keeping the others waiting."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.logger import Logger

from ws4redis_tx.revocation.session_index import IGrant, IRevocable
from ws4redis_tx.scheduling.summaries import Summaries

_log = Logger()

_AT_ONCE = 200


class Endings:
    """Ends sessions and grants, many of them a few at a time, and says why."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._timers: list[Any] = []
        self._lines = Summaries(reactor)

    def end(self, lost: Collection[IRevocable | IGrant], why: str, code: int = 1008) -> None:
        if lost:
            line = f"Ended {len(lost)} websockets: {why}"
            if self._lines.admits(why, line):
                _log.info("{line}", line=line)
            self._end_some(list(reversed(list(lost))), code)

    def end_one(self, lost: IRevocable | IGrant, why: str) -> None:
        self.end([lost], why)

    def _end_some(self, remaining: list[IRevocable | IGrant], code: int) -> None:
        for _ in range(min(_AT_ONCE, len(remaining))):
            remaining.pop().revoke(code)
        if remaining:
            self._timers = [each for each in self._timers if each.active()]
            self._timers.append(self._reactor.callLater(0, self._end_some, remaining, code))

    def stop(self) -> None:
        """The sessions are gone already. Idempotent."""
        self._lines.stop()
        for timer in self._timers:
            if timer.active():
                timer.cancel()
