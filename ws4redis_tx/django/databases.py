"""Django's database in worker threads: closing connections, and reading several rows together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import close_old_connections, connections
from django.db.models import Manager, QuerySet


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
