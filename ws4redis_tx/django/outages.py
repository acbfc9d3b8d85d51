"""The database or the session store is down: no bug of this server, and one line in its log."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import Outage, WS4RedisError, is_outage
from ws4redis_tx.revocation.rechecker import PATIENCE

_log = Logger()

_QUIET = 60.0
"""Seconds without a failure, after which the next failure begins a new outage."""


class OutageLog:
    """Writes one line for an outage, however many lookups fail in it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._failed: float | None = None

    def judge(self, failure: Failure) -> Failure:
        """Return the ``failure`` of a lookup, or an ``Outage`` in its place."""
        error = failure.value
        if error is None or isinstance(error, WS4RedisError) or not is_outage(error):
            return failure
        now, before = self._reactor.seconds(), self._failed
        self._failed = now
        problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if before is None or now - before > _QUIET:
            _log.warn(
                "The database, the session store or another server that a lookup needs does not "
                "answer ({problem}). Handshakes that need it are answered with 503 until it is "
                "back. A websocket whose rechecks still fail after {seconds:g} s is closed with "
                "1011.",
                problem=problem,
                seconds=PATIENCE,
            )
        return Failure(Outage(problem))
