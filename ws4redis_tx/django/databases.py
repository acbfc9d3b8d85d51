"""Django's database in worker threads: closing connections, reading several rows together, and one
line in the log when it is down.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import close_old_connections, connections
from django.db.models import Manager, QuerySet
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import Outage, WS4RedisError, is_outage
from ws4redis_tx.revocation.rechecker import PATIENCE

_log = Logger()

_QUIET = 60.0
"""Seconds without a failure, after which the next failure begins a new outage."""


def tidy(ending: bool) -> None:
    """Close the connections that Django closes around a request, or all if a thread is ``ending``.

    Call it once for a batch of lookups, not for each: by default Django closes every connection,
    and a new one costs a third of a lookup.
    """
    if ending:
        connections.close_all()
    else:
        close_old_connections()


def close_broken() -> None:
    """Close connections that have failed or whose transaction was left open, so that the next task
    does not use them.
    """
    for connection in connections.all(initialized_only=True):
        as_configured = connection.settings_dict["AUTOCOMMIT"]
        if connection.errors_occurred or connection.autocommit != as_configured:
            connection.close_if_unusable_or_obsolete()


def is_plain(manager: Any) -> bool:
    """Whether ``manager.get`` finds what ``manager.filter`` finds, as Django's own do."""
    rows = manager.all()
    return all(
        getattr(type(manager), name) is getattr(Manager, name)
        and getattr(type(rows), name) is getattr(QuerySet, name)
        for name in ("get", "filter")
    )


def read_rows(
    manager: Any, field: str, values: Collection[Any], **conditions: Any
) -> dict[Any, Any] | None:
    """The rows whose ``field`` has one of ``values``, by that value, in one query.

    A database may take two texts for equal that differ, as ``john`` and ``JOHN``. So a value
    without a row here may have one if it is asked for alone; and if a row has none of ``values``,
    or two rows have the same, the answer is ``None``.
    """
    rows = list(manager.filter(**{f"{field}__in": values}, **conditions))
    found = {getattr(row, field): row for row in rows}
    return found if len(found) == len(rows) and found.keys() <= set(values) else None


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
