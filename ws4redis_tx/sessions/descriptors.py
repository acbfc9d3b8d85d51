"""The last file descriptors of the process: kept for answers, and for its own needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from ws4redis_tx.core.errors import Outage
from ws4redis_tx.scheduling.immediate_writer import tcp_connection

_log = Logger()

MOST_ANSWERS, MOST_OWN = 64, 32
"""Descriptors that are kept for clients that get 503, and for other things: Redis, a database, a
log. Fewer are kept if the limit is low.
"""

QUIET = 60.0
"""Seconds between two log lines."""


def soft_limit() -> int | None:
    """The number of descriptors that this process may have; ``None`` if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


class Descriptors:
    """Tells which connections are to be answered with 503, and how many more can be answered.

    A new descriptor gets the lowest number that is free. So those with the highest numbers are used
    only when all others are.
    """

    def __init__(
        self, seconds: Callable[[], float], limit: Callable[[], int | None] = soft_limit
    ) -> None:
        self._seconds = seconds
        self._limit = limit
        self._near = False
        self._told = -QUIET

    def check(self, transport: Any) -> None:
        """Raise ``Denied`` (503) if ``transport`` has one of the descriptors that are kept."""
        limit, connection = self._limit(), tcp_connection(transport)
        if limit is None or connection is None:
            return
        if connection.fileno() in range(_for_answers(limit).start, limit):
            self._tell(limit)
            raise Outage("the process runs out of file descriptors")

    def room(self) -> int:
        """The number of further connections that could be answered, or somewhat less. Negative if
        none could be.
        """
        limit = self._limit()
        if limit is None:
            return MOST_ANSWERS
        kept = _for_answers(limit)
        try:
            lowest = os.open(os.sep, os.O_RDONLY)
        except OSError:
            return -1
        os.close(lowest)
        if lowest >= kept.stop:
            return -1
        almost = lowest >= kept.start - MOST_ANSWERS
        if not almost and not self._near:
            return len(kept)
        used = sum(map(_is_open, kept))
        self._near = almost or used > 0
        return len(kept) - used

    def at_once(self) -> int:
        """The number of connections that may be accepted before one of them is answered."""
        limit = self._limit()
        return max(1, (MOST_ANSWERS if limit is None else len(_for_answers(limit))) // 4)

    def _tell(self, limit: int) -> None:
        now = self._seconds()
        if now - self._told >= QUIET:
            self._told = now
            _log.warn(
                "The process has almost as many file descriptors as it may have ({limit}). New "
                "clients are answered with 503 until others leave. Raise the limit: ulimit -n, or "
                "LimitNOFILE= of systemd",
                limit=limit,
            )


def _for_answers(limit: int) -> range:
    """The descriptors that are kept for answers. Those behind them are kept for us."""
    end = limit - min(MOST_OWN, limit // 8)
    return range(end - min(MOST_ANSWERS, limit // 4), end)


def _is_open(descriptor: int) -> bool:
    try:
        os.get_inheritable(descriptor)
    except OSError:
        return False
    return True
