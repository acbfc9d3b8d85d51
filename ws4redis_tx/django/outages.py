"""The database or the session store is down: no bug of this server, and one line in its log."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import Outage, WS4RedisError
from ws4redis_tx.revocation.rechecker import PATIENCE

_log = Logger()

# The names that database drivers, caches and HTTP clients give to such errors. Each library has
# classes of its own; most of them have no base that they share with another library.
_NAMES = frozenset({
    "ConnectionError", "ConnectionInterrupted", "HostLookupError", "InterfaceError",
    "MemcacheServerError", "OperationalError", "ServerDead", "ServerDown", "Timeout",
    "TimeoutError", "gaierror",
})  # fmt: skip
_NUMBERS = frozenset({
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
})  # fmt: skip

_QUIET = 60.0
"""Seconds without a failure, after which the next failure begins a new outage."""


def is_outage(error: BaseException) -> bool:
    """Whether ``error`` says that a database, a cache or another server does not answer."""
    errors = list(_with_causes(error))
    if any(getattr(each, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR for each in errors):
        return False  # SQLite says OperationalError for a table that was never made, too
    return any(
        any(base.__name__ in _NAMES for base in type(each).__mro__)
        or (isinstance(each, OSError) and each.errno in _NUMBERS)
        for each in errors
    )


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


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__
