"""Looking at what changed once more: a replica or a cache may still have had the old data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ws4redis_tx.revocation.messages import RECHECK, Revocation

AGAIN_AFTER = 2.0
"""Seconds."""


class SecondLooks:
    """Calls ``look`` with a revocation once more, and only once however often it comes."""

    def __init__(self, reactor: Any, look: Callable[[Revocation], None]) -> None:
        self._reactor = reactor
        self._look = look
        self._due: dict[tuple[str, tuple[str, ...], str], float] = {}
        self._timer: Any = None

    def later(self, revocation: Revocation) -> None:
        key = (revocation.kind, revocation.values, revocation.tenant)
        if not self._due:
            self._timer = self._reactor.callLater(AGAIN_AFTER, self._go)
        self._due.pop(key, None)
        self._due[key] = self._reactor.seconds() + AGAIN_AFTER

    def _go(self) -> None:
        now = self._reactor.seconds()
        while self._due:
            key, due = next(iter(self._due.items()))
            if due > now:
                self._timer = self._reactor.callLater(due - now, self._go)
                return
            del self._due[key]
            self._look(Revocation(RECHECK, *key))

    def stop(self) -> None:
        self._due.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
